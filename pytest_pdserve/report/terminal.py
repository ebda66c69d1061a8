"""What the terminal shows at the end: a table of cells, findings, claims, and where records lie."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_pdserve.judge.verdict import Status
from pytest_pdserve.report.claims import claim_lines
from pytest_pdserve.report.nights import night_lines
from pytest_pdserve.report.table import text_table
from pytest_pdserve.session import Cell
from pytest_pdserve.session import Session
from pytest_pdserve.values.metrics import METRICS

_COLUMNS = (
    ("mean_ttft_ms", "TTFT"),
    ("p99_ttft_ms", "p99 TTFT"),
    ("mean_itl_ms", "ITL"),
    ("mean_tpot_ms", "TPOT"),
    ("output_throughput", "output"),
)


def summary_lines(session: Session) -> list[str]:
    """Table of cells, what sanity had to say, claims, and where the records lie."""
    rows = [
        (cell, str(session.verdicts[key].status) if key in session.verdicts else "measured")
        for key, cell in session.cells.items()
    ]
    rows += [(cell, "INVALID") for cell in session.invalid.values()]
    if not rows and not session.claims and not session.wholes:
        return []
    simulated = session.system.cluster.kind == "simulated"
    lines = [f"SIMULATED, no server ran: {session.system.description}"] if simulated else []
    if session.system.cluster.kind == "figures":
        lines = [f"FIGURES, nothing was measured: {session.system.description}"]
    lines += _table(rows) if rows else []
    lines += night_lines(session)
    lines += _notes(session)
    lines += claim_lines(session)
    if any(verdict.status is Status.RECORDED for verdict in session.verdicts.values()):
        times = dict(
            pair for v in session.verdicts.values() for pair in v.evidence if pair[0] == "times"
        )
        lines.append(
            "times of this host were recorded, not judged: "
            + times.get("times", "see the candidate baseline").removesuffix(
                " (recorded, not judged)"
            )
        )
    if session.system.cluster.kind != "figures":
        lines.append(f"records and logs: {session.store.folder}")
    return lines


def _table(rows: Sequence[tuple[Cell, str]]) -> list[str]:
    labels = [f"{label}\n{METRICS[name].unit}" for name, label in _COLUMNS]
    texts = []
    for cell, verdict in rows:
        values = [cell.value(name) for name, _ in _COLUMNS]
        numbers = ("-" if value is None else f"{value:.1f}" for value in values)
        texts.append((cell.topology, cell.workload.id, *numbers, verdict))
    align = f"ll{'r' * len(labels)}l"
    return text_table(("topology", "workload", *labels, "verdict"), texts, align)


def _notes(session: Session) -> list[str]:
    said: dict[str, list[str]] = {}
    for cell in (*session.cells.values(), *session.invalid.values()):
        for record in cell.records:
            for finding in record.findings:
                if finding.severity != "invalid":
                    where = f"{cell.topology} {cell.workload.lengths}"
                    said.setdefault(f"{finding.severity}: {finding.message}", []).append(where)
    return [f"{text} [{', '.join(dict.fromkeys(cells))}]" for text, cells in said.items()]
