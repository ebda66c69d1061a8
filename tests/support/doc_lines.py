"""Which commands of how-to and reference pages run in tests, where, and with which exit code."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field

from tests.support.doc_pages import command_lines
from tests.support.wheel import ROOT

IMPORT = "pdserve history import"


@dataclass(frozen=True, slots=True, kw_only=True)
class PageLines:
    """Lines of one page that run one after the other in one folder."""

    page: str
    lines: str = ""
    """Regular expression that they begin with."""
    first: tuple[str, ...] = ()
    """Lines that the page takes for done."""
    codes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Exit codes where not 0 alone, by a part of the line; several where the machine decides."""
    slow: bool = False
    replace: Mapping[str, str] = field(default_factory=dict)
    """Replacements of addresses, paths and jobs that exist on other machines only."""

    def __str__(self) -> str:
        return f"{self.page} {self.lines}".strip()

    def chosen(self) -> list[str]:
        """Return the lines as the page has them."""
        found = command_lines(ROOT / self.page)
        return [line for line in found if re.match(self.lines, line)]

    def expected(self, line: str) -> tuple[int, ...]:
        """Return the exit codes that a line may have."""
        return next((codes for part, codes in self.codes.items() if part in line), (0,))

    def typed(self, line: str) -> str:
        """Return a line as the test types it."""
        for old, new in self.replace.items():
            line = line.replace(old, new)
        return line


STORED = (
    PageLines(page="docs/baselines.md", lines="pdserve baseline"),
    PageLines(
        page="docs/comparing.md",
        codes={"_2025-05_": (6,)},
        replace={" A B ": " runs/20261128T075604-simulated runs/20261128T075630-simulated "},
    ),
    PageLines(page="docs/figures.md", lines="pdserve plot", first=(IMPORT,), slow=True),
    PageLines(
        page="docs/history.md",
        slow=True,
        lines=r"pdserve (history|baseline)(?!.*mi300x)",
        replace={"/mnt/nightlies": "elsewhere", " nightlies/": " new.json --topology 1p3d"},
    ),
    PageLines(
        page="docs/history.md", lines=r"pdserve (.*mi300x|report)", codes={"pdserve judge": (6,)}
    ),
    PageLines(page="docs/importing.md"),
    PageLines(page="docs/page.md", lines="pdserve", first=(IMPORT,), slow=True),
    PageLines(page="docs/report.md", lines="pdserve", replace={"/var/lib/": "var-lib-"}),
    PageLines(page="docs/trend.md", first=(IMPORT,), slow=True),
)
"""Lines that read stored sessions (``doc_projects.shelf_of_nights``)."""

SIMULATED = (
    PageLines(page="docs/calibration.md", lines="pytest", slow=True),
    PageLines(
        page="docs/gate.md", lines="pdserve gate --system simulated", codes={"": (1,)}, slow=True
    ),
    PageLines(page="docs/nightly.md", codes={"": (6,)}, slow=True),
    PageLines(page="docs/report.md", lines="pytest suites/sweep", codes={"-k nothing": (5,)}),
    PageLines(page="docs/simulation.md", slow=True),
)
"""Lines that measure simulated systems, of two short cells each."""
ALONE = (
    PageLines(page="docs/claims.md", lines="pytest suites/claims"),
    PageLines(page="docs/doctor.md", codes={"": (0, 4)}, slow=True),
    PageLines(page="docs/gate.md", lines="pdserve gate .*--plan", slow=True),
    PageLines(page="docs/installing.md", lines="pdserve init"),
    PageLines(page="docs/rehearse.md", lines="pdserve rehearse .*--plan", slow=True),
    PageLines(page="docs/slurm.md", lines="pdserve plan"),
)
"""Lines that need nothing beside the package."""
STUBS = (
    PageLines(page="docs/endpoints.md", slow=True),
    PageLines(page="docs/fabric.md", lines="pytest", slow=True),
    PageLines(page="docs/figures.md", lines="pytest .*-autosave", slow=True),
    PageLines(page="docs/gpu-host.md", lines="pytest", slow=True),
    PageLines(page="docs/gpu-host-measured.md", slow=True),
    PageLines(page="docs/index.md", slow=True),
    PageLines(page="docs/page.md", lines="pytest", slow=True),
    PageLines(
        page="docs/rehearse.md",
        lines="pdserve rehearse --from current",
        codes={"reseeded": (0, 1, 6)},
        slow=True,
    ),
    PageLines(page="docs/report.md", lines="pytest suites/ ", slow=True),
    PageLines(page="docs/transfer.md", codes={"": (0, 1)}, slow=True),
)
"""Lines that start servers: stub engines on this machine, under the names of the pages' systems."""
SLURM = (
    PageLines(page="docs/baselines.md", lines="pytest", slow=True),
    PageLines(page="docs/claims.md", lines="pytest suites/ ", slow=True),
    PageLines(page="docs/slurm.md", lines="pytest", slow=True),
)
"""Lines that start servers by Slurm: stub engines on a Slurm of one host (``tests/slurm``)."""
ALL = (*STORED, *SIMULATED, *ALONE, *STUBS, *SLURM)
