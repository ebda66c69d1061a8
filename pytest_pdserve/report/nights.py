"""Lines of the terminal's summary on the night: failures, open verdicts, then notes."""

from __future__ import annotations

from collections.abc import Iterator

from pytest_pdserve.judge.cells import MetricVerdict
from pytest_pdserve.judge.limits import as_change
from pytest_pdserve.judge.verdict import WORSE
from pytest_pdserve.judge.verdict import Verdict
from pytest_pdserve.judge.wording import percent
from pytest_pdserve.report.names import short_names
from pytest_pdserve.session.session import Session
from pytest_pdserve.values.baseline import Key
from pytest_pdserve.values.metrics import METRICS
from pytest_pdserve.values.rules import RULE

_MAX_NAMES = 5
"""Cells that one line names."""


def night_lines(session: Session) -> list[str]:
    """Return a line for each verdict that is not a PASS, and notes on the night."""
    return [*session.trouble, *_worst(_verdicts(session)), *night_notes(session)]


def _verdicts(session: Session) -> dict[Key, Verdict]:
    """Return the verdicts on topologies and cells, by their names in lines."""
    topologies = {(name, "as a whole"): v for name, v in session.topology_verdicts.items()}
    return {**topologies, **session.verdicts}


def night_notes(session: Session) -> list[str]:
    """Return how much was judged, and which changes could not be seen, a sentence each."""
    verdicts = _verdicts(session)
    if not any(verdict.metrics for verdict in verdicts.values()):
        return [*session.session_judge.expected.problems]
    cells = [cell for key, cell in session.cells.items() if not session.is_new(key)]
    runs = sum(len(cell.records) for cell in cells)
    counted = f"{_count(len(cells), 'cell')} in {_count(runs, 'run')}"
    lines = [f"judged: {counted}, {session.reruns} of them reruns"]
    lines += _blind(session)
    lines += _better(verdicts, session)
    judge = session.session_judge
    if judge.alarms_went_away:
        lines.append(
            f"one night cannot FAIL on this system: of the last {RULE.false_alarm_nights} nights, "
            f"{RULE.false_alarms} or more had an alarm that was gone the next night"
        )
    lines += judge.expected.problems
    lines += [f"left out of the nights before: {why}" for why in judge.history.unreadable]
    return lines


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _worst(verdicts: dict[Key, Verdict]) -> Iterator[str]:
    """Yield a line for each verdict that is worse, FAIL first and the largest change first."""
    shown = [(key, verdict) for key, verdict in verdicts.items() if verdict.status in WORSE]
    shown.sort(key=lambda each: (WORSE.index(each[1].status), -each[1].severity))
    for key, verdict in shown:
        yield f"{verdict.status}: {' '.join(key)}: {verdict.misses[0]}{_also(verdict)}"


def _also(verdict: Verdict) -> str:
    """Return what else is worse, after the first sentence."""
    first = 0 if verdict.faults else 1
    others = [f"{metric.metric} {_change(metric)}" for metric in verdict.worse[first:]]
    others += verdict.faults[1:]
    return f" Also {', '.join(others)}." if others else ""


def _change(metric: MetricVerdict) -> str:
    return percent(as_change(metric.tonight.change, METRICS[metric.metric].better))


def _blind(session: Session) -> Iterator[str]:
    """Yield a line on cells whose limits are wider than the system promises."""
    judgement, blind = session.system.judgement, []
    names = short_names([cell.workload for cell in session.cells.values()])
    for key, verdict in session.verdicts.items():
        wide = [metric for metric in verdict.metrics if _is_blind(metric, session)]
        if wide:
            worst = max(wide, key=lambda metric: metric.tonight.reference.limit)
            limit = as_change(worst.tonight.reference.limit, METRICS[worst.metric].better)
            record = session.cells[key].records[0]
            bench = record.timings_s.get("bench", 0.0)
            sees = percent(abs(limit)).removeprefix("+")
            blind.append(
                f"{key[0]} {names.of(record.workload)} {worst.metric} sees {sees} "
                f"({record.workload.num_prompts} prompts last {bench:.3g} s)"
            )
    if blind:
        promised = ", ".join(
            f"{name} {100 * judgement.promise(name):.0f} %"
            for name in ("mean_itl_ms", "mean_ttft_ms", "p99_ttft_ms")
        )
        shown = "; ".join(blind[:_MAX_NAMES])
        more = f"; and {len(blind) - _MAX_NAMES} more" if len(blind) > _MAX_NAMES else ""
        yield (
            f"{len(blind)} of {len(session.verdicts)} cells see less than this system promises "
            f"({promised}): {shown}{more}. More prompts or nights help (pdserve calibrate)"
        )


def _is_blind(metric: MetricVerdict, session: Session) -> bool:
    reference = metric.tonight.reference
    if reference.is_provisional:
        return False
    worse = as_change(reference.limit, "lower")
    return worse > session.system.judgement.promise(metric.metric) + 1e-9


def _better(verdicts: dict[Key, Verdict], session: Session) -> Iterator[str]:
    """Yield a line on the cells and topologies that have been better, with their largest gains."""
    better = []
    for key, verdict in verdicts.items():
        gains = [metric for metric in verdict.metrics if metric.is_better]
        if gains:
            largest = min(gains, key=lambda metric: metric.severity)
            more = "metric" if len(gains) == 2 else "metrics"
            others = f" (and {len(gains) - 1} more {more})" if len(gains) > 1 else ""
            better.append(f"{' '.join(key)} {largest.metric} {_change(largest)}{others}")
    if better:
        more = f"; and {len(better) - _MAX_NAMES} more" if len(better) > _MAX_NAMES else ""
        shown = "; ".join(better[:_MAX_NAMES])
        yield (
            f"better for {RULE.better_nights} nights: {shown}{more}. Accept it, so that a later "
            f"loss is seen: {session.session_judge.how_to_accept}"
        )
