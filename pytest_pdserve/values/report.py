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
    """A difference of machines or software from an earlier session."""

    what: str
    """Name of what differs, e.g. ``vLLM``."""
    before: str
    """Value in the earlier session; in a report, that is the baseline's newest one."""
    now: str
    """Value in this session."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Since:
    """Since when a metric has been worse in every night that measured it."""

    night: Line
    """First of these nights: its date, or its number if it was simulated."""
    nights: Annotated[int, Meta(ge=1)]
    """Number of these nights, with the night of the verdict."""
    at_least: bool = False
    """True if there may be more of them, before the nights that were read."""
    before: Line = ""
    """The last night before the first of them; empty if there is none."""
    changes: tuple[Difference, ...] = ()
    """Versions and nodes that differ between :attr:`before` and :attr:`night`."""
    nodes_known: bool = True
    """True if both nights recorded their nodes."""


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
    """Median of tonight's runs, one of each start; None for a topology, and if a run has no usable
    value."""
    void: bool = False
    """True if sanity found that the value is not to be used."""
    judged: bool = False
    """True if it is one of the metrics by which nights are judged."""
    status: Outcome | None = None
    """Its own verdict; None if it was not compared with a reference."""
    reference: float | None = None
    """Median of the baseline's nights; None for a topology, and without a baseline."""
    nights: Count = 0
    """Number of nights of which the reference is the median."""
    provisional: bool = False
    """True if these are too few for the normal limit."""
    change: float | None = None
    """Median change of tonight's runs."""
    runs: tuple[float, ...] = ()
    """Change of each of them."""
    limit: float | None = None
    """Change beyond which it is worse: above 0 if lower is better, below 0 if higher is better."""
    suspicious_nights: Count = 0
    """Nights in a row before tonight on which it was suspicious."""
    since: Since | None = None
    """Since when it is worse; None if it is not."""
    improved: bool = False
    """True if it has been better than its reference for some nights."""
    improved_tonight: bool = False
    """True if it is better than its reference by more than the limit tonight."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceLine:
    """A line of evidence for a verdict, or what to do next."""

    label: str
    """Label, e.g. ``baseline`` or ``rerun``."""
    text: str
    """Text of the line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerdictReport:
    """The verdict on one subject."""

    kind: SubjectKind
    """Kind of the subject."""
    status: Outcome
    """The verdict."""
    subject: str
    """The subject, as messages name it."""
    topologies: tuple[Word, ...]
    """The topology, or all that a claim compares."""
    name: str = ""
    """Id of the claim or of the smoke test; empty for cells and topologies."""
    workload: Word | None = None
    """Id of the workload; None if the subject is not a cell."""
    misses: tuple[str, ...] = ()
    """What is worse, missing or not settled, a sentence each."""
    evidence: tuple[EvidenceLine, ...] = ()
    """Evidence, and what to do next."""
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
    """Reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FindingReport:
    """A finding of a sanity check, and the cells that have it."""

    severity: Severity
    """As in a record's finding."""
    check: str
    """Name of the check."""
    message: str
    """The sentence."""
    cells: tuple[str, ...]
    """Topology and workload of each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Nodes and GPUs that a session held, and their price."""

    node_hours: Amount
    """Nodes times hours."""
    gpu_hours: Amount
    """GPUs times hours; 0 if the nodes have none."""
    price: Amount | None = None
    """GPU-hours at the system file's price; None if it has none."""
    currency: str = ""
    """Currency of the price."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One session, with all that a page about it shows."""

    headline: Line = ""
    """Its first line: the worst verdict and how many there are, or that nothing was measured."""
    status: Outcome | None = None
    """The worst verdict; ERROR also if a test ended in an error without a verdict; None if there is
    neither."""
    measured: bool
    """True if a run of this session left a record."""
    system: str
    """Name of the system."""
    description: str = ""
    """Description in the system file."""
    simulated: bool = False
    """True if no server ran."""
    figures: bool = False
    """True if the system consists of published figures."""
    session: SessionRef | None = None
    """The session; None if it ended before it had a folder."""
    folder: str = ""
    """Folder of its records, as the session named it."""
    ended: bool = True
    """True if the session reached its end."""
    rejudged: bool = False
    """True if the verdicts are not the session's own, but by the baseline of a later day."""
    topologies: tuple[Word, ...] = ()
    """Requested topologies."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Version by package or component."""
    nodes: tuple[str, ...] = ()
    """Nodes that were used."""
    client: str = ""
    """Kind of the benchmark client."""
    outcomes: Mapping[str, Count] = field(default_factory=dict)
    """Number of verdicts by outcome, worst first."""
    tests: Mapping[str, Count] = field(default_factory=dict)
    """Number of tests that ``passed``, ``failed`` and so on; empty if pytest did not run."""
    verdicts: tuple[VerdictReport, ...] = ()
    """All verdicts, worst first."""
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
    """Differences from the baseline's newest session."""
    findings: tuple[FindingReport, ...] = ()
    """Findings of sanity checks, ``invalid`` first."""
    notes: tuple[str, ...] = ()
    """Further notes on the night, a sentence each."""
    phases: SessionTimes | None = None
    """Times by phase; None for simulated servers and figures."""
    cost: Cost | None = None
    """Cost of the nodes that it held; None without nodes."""
