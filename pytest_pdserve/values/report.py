"""The report of one session: measurements, verdicts and evidence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
from typing import Annotated
from typing import Literal
from typing import get_args

from msgspec import Meta

from pytest_pdserve.values.phases import SessionTimes
from pytest_pdserve.values.record import Severity
from pytest_pdserve.values.sessions import SessionRef
from pytest_pdserve.values.text import Line
from pytest_pdserve.values.text import Word

Outcome = Literal[
    "FAIL",
    "ERROR",
    "SUSPICIOUS",
    "INCONCLUSIVE",
    "NOT JUDGED",
    "NEW",
    "EXPECTED",
    "REPORTED",
    "MEASURED",
    "NOT ASKED",
    "PASS",
]
"""Verdicts, worst first; ``MEASURED`` for a cell that no test judged."""
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
"""All outcomes, worst first."""
SubjectKind = Literal["topology", "cell", "claim", "smoke"]
"""Subject of a verdict: the median over a topology's cells, a cell, a claim, or a smoke test."""
Count = Annotated[int, Meta(ge=0)]
Amount = Annotated[float, Meta(ge=0)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """What of the machines or the software is not as it was in an earlier session."""

    what: str
    """E.g. ``vLLM``."""
    before: str
    """In the earlier session: of a report the newest one of the baseline."""
    now: str
    """What it became."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Since:
    """Since when a metric has been worse in every night that measured it."""

    night: Line
    """The first of these nights: its date, or its number if it was simulated."""
    nights: Annotated[int, Meta(ge=1)]
    """How many they are, with the night of the verdict."""
    at_least: bool = False
    """Whether there may be more of them, before all nights that were looked at."""
    before: Line = ""
    """The last night before the first of them; empty if there is none."""
    changes: tuple[Difference, ...] = ()
    """Versions and nodes that are not the same in these two nights."""
    nodes_known: bool = True
    """Whether both nights recorded their nodes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricReport:
    """One metric of a cell or a topology; changes are fractions: 0.05 is 5 % more."""

    metric: Word
    """Its name."""
    unit: str
    """Unit of :attr:`value` and :attr:`reference`."""
    better: Literal["lower", "higher", "equal"]
    """Direction."""
    value: float | None = None
    """Median of tonight's runs, one of each start; None of a topology, and where a run has no value
    that may be used."""
    void: bool = False
    """Whether sanity found that the value is not to be used."""
    judged: bool = False
    """Whether it is one of those that baselines hold."""
    status: Outcome | None = None
    """Its own verdict; None where it was not held against a reference."""
    reference: float | None = None
    """Median of the baseline's nights; None of a topology, and without one."""
    nights: Count = 0
    """Nights that the reference is of."""
    provisional: bool = False
    """Whether these are too few for the normal limit."""
    change: float | None = None
    """Median change of tonight's runs."""
    runs: tuple[float, ...] = ()
    """Change of each of them."""
    limit: float | None = None
    """Change that is too much: above 0 where lower is better, below where higher is."""
    suspicious_nights: Count = 0
    """Nights in a row before tonight on which it was suspicious."""
    since: Since | None = None
    """Since when it is worse; None where it is not."""
    improved: bool = False
    """Whether it has been better than its reference for some nights."""
    improved_tonight: bool = False
    """Whether it is better than its reference by more than the limit tonight."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceLine:
    """One thing that a verdict rests on, or what to do next."""

    label: str
    """E.g. ``baseline``, ``rerun``."""
    text: str
    """What it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerdictReport:
    """The verdict on one subject."""

    kind: SubjectKind
    """What the subject is."""
    status: Outcome
    """The verdict."""
    subject: str
    """The subject, as messages name it."""
    topologies: tuple[Word, ...]
    """The topology, or all that a claim compares."""
    name: str = ""
    """Id of the claim, or of the test that asked the servers; empty of cells and topologies."""
    workload: Word | None = None
    """Id of the workload; None of what is not a cell."""
    misses: tuple[str, ...] = ()
    """What is worse, missing or not settled, a sentence each."""
    evidence: tuple[EvidenceLine, ...] = ()
    """What it rests on."""
    severity: float = 0.0
    """Largest change, in limits; 0 without metrics."""
    metrics: tuple[MetricReport, ...] = ()
    """Metrics of a cell, or of a topology's median; judged ones first, the largest change first."""
    runs: Count = 0
    """Runs of a cell."""
    records: tuple[str, ...] = ()
    """Files of these runs, relative to the session's folder."""

    @property
    def title(self) -> str:
        """The subject in few words."""
        if self.kind == "topology":
            return f"{self.topologies[0]} as a whole"
        return self.name or " ".join([*self.topologies, self.workload or ""]).strip()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """Something that did not happen, and why."""

    subject: str
    """Cell, topology, claim or test."""
    why: str
    """Why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FindingReport:
    """One sentence of sanity, and the cells that it is about."""

    severity: Severity
    """As of a record's finding."""
    check: str
    """Which check."""
    message: str
    """The sentence."""
    cells: tuple[str, ...]
    """Topology and workload of each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What the session held, for how long, and what that cost."""

    node_hours: Amount
    """Nodes times hours."""
    gpu_hours: Amount
    """GPUs times hours; 0 where the nodes have none."""
    price: Amount | None = None
    """GPU-hours at the system file's price; None where it has none."""
    currency: str = ""
    """Of the price."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One session, with all that a page about it shows."""

    headline: Line = ""
    """Its first line: the worst verdict and how many there are, or that nothing was measured."""
    status: Outcome | None = None
    """The worst verdict; ERROR also where a test ended in an error without one. None where there is
    neither."""
    measured: bool
    """Whether a run of this session left a record."""
    system: str
    """Name of the system."""
    description: str = ""
    """As the system file has it."""
    simulated: bool = False
    """Whether no server ran."""
    figures: bool = False
    """Whether the system consists of published figures."""
    session: SessionRef | None = None
    """The session; None where it ended before it had a folder."""
    folder: str = ""
    """Folder of its records, as the session named it."""
    ended: bool = True
    """Whether the session reached its end."""
    rejudged: bool = False
    """Whether the verdicts are not the session's own, but by the baseline of a later day."""
    topologies: tuple[Word, ...] = ()
    """Requested topologies."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Package or component and version."""
    nodes: tuple[str, ...] = ()
    """Nodes that were used."""
    client: str = ""
    """Kind of the benchmark client."""
    outcomes: Mapping[str, Count] = field(default_factory=dict)
    """How many verdicts there are of each, the worst first."""
    tests: Mapping[str, Count] = field(default_factory=dict)
    """How many tests ``passed``, ``failed`` and so on; empty where pytest did not run."""
    verdicts: tuple[VerdictReport, ...] = ()
    """Every verdict, the worst first."""
    errors: tuple[Reason, ...] = ()
    """Tests that failed or ended in an ERROR without a verdict."""
    not_judged: tuple[Reason, ...] = ()
    """Requested cells, topologies and claims that were not judged, with the reason."""
    not_measured: tuple[str, ...] = ()
    """Cells of the baseline that the session did not measure, of topologies that it did."""
    left_out: tuple[str, ...] = ()
    """Cells and tests that the session had no time for, as it had to end."""
    baseline: str = ""
    """Baseline: file, versions and approver."""
    differences: tuple[Difference, ...] = ()
    """What is not as in the baseline's newest session."""
    findings: tuple[FindingReport, ...] = ()
    """Findings of sanity checks, ``invalid`` first."""
    notes: tuple[str, ...] = ()
    """Further notes on the night, a sentence each."""
    phases: SessionTimes | None = None
    """Times by phase; None for simulated servers and figures."""
    cost: Cost | None = None
    """Cost of the nodes that it held; None without nodes."""
