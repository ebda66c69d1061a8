"""Where the time of a session goes outside the benchmark itself, read from its records.

Prints, per topology, seconds to ready, of warm-up, and of each run's client outside its
measurement, and the share of all this in the time of the cells. Usage:
``python benchmarks/overhead.py runs/<run id>``.
"""

from __future__ import annotations

import statistics
import sys
from collections import defaultdict
from pathlib import Path

from pytest_pdserve.results.store import RECORD_SUFFIX
from pytest_pdserve.results.store import load_record


def main(folder: Path) -> None:
    """Print one line per topology of the run in *folder*."""
    runs: dict[str, list[dict[str, float]]] = defaultdict(list)
    for path in sorted(folder.glob(f"*/*{RECORD_SUFFIX}")):
        record = load_record(path)
        runs[record.topology].append(dict(record.timings_s))
    if not runs:
        sys.exit(f"{folder} holds no records")
    for topology, timings in runs.items():
        ready, warmup = timings[0]["ready"], timings[0]["warmup"]
        client = [t["client"] - t["bench"] for t in timings]
        measured = sum(t["bench"] for t in timings)
        outside = ready + warmup + sum(client)
        sys.stdout.write(
            f"{topology:<8} ready {ready:5.1f} s, warm-up {warmup:4.1f} s, client start and stop "
            f"{statistics.median(client):4.1f} s x {len(client)}; measured {measured:5.1f} s, "
            f"outside {outside:5.1f} s ({outside / (outside + measured):.0%})\n"
        )


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python benchmarks/overhead.py runs/<run id>")
    main(Path(sys.argv[1]))
