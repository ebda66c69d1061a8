"""What judging one night costs, beside a Welch test of each metric on the same values.

Simulated: 5 topologies x 8 cells x 6 metrics, baselines of 20 nights, three nights before, and
three runs of every cell tonight. The times of one repeat are of one process, one after the other.
``python benchmarks/judge_speed.py [REPEATS]``
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np
from scipy import stats

from pytest_pdserve.judge.cells import judge_metrics
from pytest_pdserve.judge.cells import night_metrics
from pytest_pdserve.judge.cells import references_of
from pytest_pdserve.judge.cells import topology_night_metrics
from pytest_pdserve.judge.cells import topology_references
from pytest_pdserve.judge.limits import as_value
from pytest_pdserve.results.nights import night_of_runs
from pytest_pdserve.results.nights import source_of
from pytest_pdserve.study.noise import SIMULATED
from pytest_pdserve.study.noise import Floats
from pytest_pdserve.study.noise import Layout
from pytest_pdserve.study.noise import draw
from pytest_pdserve.study.noise import noise_named
from pytest_pdserve.values.baseline import Baseline
from pytest_pdserve.values.baseline import Key
from pytest_pdserve.values.metrics import METRICS
from pytest_pdserve.values.record import Record
from pytest_pdserve.values.rules import RULE
from pytest_pdserve.values.sessions import SessionRef
from pytest_pdserve.values.workload import Workload

LAYOUT = Layout()
FLOORS = {name: METRICS[name].floor for name in METRICS.times}
Night = Mapping[Key, Sequence[Record]]


def main(repeats: int) -> None:
    """Print the median and the range of the seconds of each way, and of their ratio."""
    rng = np.random.default_rng(1)
    nights = RULE.max_nights + RULE.better_nights + 1
    draws = draw(noise_named("normal"), rng, layout=LAYOUT, baseline=0, nights=nights)
    stored = [night_of(draws[number], number, runs=1) for number in range(nights - 1)]
    tonight = night_of(draws[-1], nights, runs=RULE.max_runs)
    baseline = Baseline(system="s", suite="sweep", source="")
    for night in stored[: RULE.max_nights]:
        for key, runs in night.items():
            joined = night_of_runs(runs)
            assert joined is not None
            baseline = baseline.joined(key, joined, {}, source_of(runs[0]))
    past = stored[: -RULE.better_nights - 1 : -1]
    before, after = draws[: RULE.max_nights, 0], draws[-1, : RULE.max_runs]
    ours, theirs = [], []
    for _ in range(repeats):
        ours.append(seconds(lambda: judge(baseline, past, tonight)))
        theirs.append(seconds(lambda: welch(before, after)))
    ratios = [one / other for one, other in zip(ours, theirs, strict=True)]
    say("pdserve: references, cells, topologies", ours, "s")
    say("scipy.stats.ttest_ind (Welch), a call a test", theirs, "s")
    say("ratio, pdserve to Welch", ratios, "x")


def night_of(draws: Floats, number: int, *, runs: int) -> Night:
    """Return the records of one night, so many runs of each cell."""
    night = {}
    for cell in range(LAYOUT.cells):
        records = [
            record_of(draws[start, cell], night=number, start=start, cell=cell)
            for start in range(runs)
        ]
        night[records[0].topology, records[0].workload.id] = records
    return night


def record_of(logs: Floats, *, night: int, start: int, cell: int) -> Record:
    """Return a record with these values, and nothing else that judging reads."""
    return Record(
        session=SessionRef(id=f"night{night}", simulated_night=night),
        system="s",
        simulated=True,
        fingerprint="f",
        topology=f"t{cell // LAYOUT.cells_each}",
        workload=Workload(input_len=512 + cell, output_len=256, num_prompts=4),
        repeat=start,
        start=start,
        started_at="2026-01-01T00:00:00.000Z",
        finished_at="2026-01-01T00:00:01.000Z",
        versions={},
        host={},
        nodes=(),
        processes=(),
        endpoint="",
        client={},
        metrics={
            name: as_value(float(log), METRICS[name].better)
            for name, log in zip(SIMULATED, logs, strict=True)
        },
        served=(),
        timings_s={},
        findings=(),
        requests=None,
    )


def judge(baseline: Baseline, past: Sequence[Night], tonight: Night) -> None:
    """Judge every cell and every topology of a night."""
    cells = {key: baseline.cell(key) for key in baseline.keys}
    references = {key: references_of(cell, FLOORS) for key, cell in cells.items() if cell}
    for key in tonight:
        seen = [night_metrics(there[key], references[key]) for there in (tonight, *past)]
        judge_metrics(seen[0], seen[1:], one_night_is_enough=True, covers=lambda *_: None)
    for number in range(LAYOUT.topologies):
        mine = {key: there for key, there in references.items() if key[0] == f"t{number}"}
        of_topology = topology_references(baseline, mine, FLOORS)
        seen = [topology_night_metrics(there, mine, of_topology) for there in (tonight, *past)]
        judge_metrics(seen[0], seen[1:], one_night_is_enough=True, covers=lambda *_: None)


def welch(before: Floats, after: Floats) -> None:
    """Test each metric of each cell: the baseline's nights against tonight's runs."""
    for place in np.ndindex(before.shape[1:]):
        here = (slice(None), *place)
        stats.ttest_ind(after[here], before[here], equal_var=False, alternative="greater")


def seconds(way: Callable[[], None]) -> float:
    """Return how long *way* takes."""
    begin = time.perf_counter()
    way()
    return time.perf_counter() - begin


def say(what: str, values: Sequence[float], unit: str) -> None:
    """Print the median and the range of some values."""
    median, ends = statistics.median(values), f"{min(values):.3f} to {max(values):.3f}"
    sys.stdout.write(f"{what:<45} {median:.3f} {unit} ({ends}, {len(values)} repeats)\n")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 11)
