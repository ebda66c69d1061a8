"""What the plugin costs a project that has it installed and does not use it.

Runs ``pytest --collect-only`` on an empty test file, with the plugin and with ``-p no:pdserve``, in
turns, and prints medians, spreads and their difference. Usage:
``python benchmarks/plugin_cost.py [pairs]``.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BASE = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"]
VARIANTS = {"with pdserve": BASE, "without": [*BASE, "-p", "no:pdserve"]}


def seconds(command: list[str], folder: str) -> float:
    """Wall time of one run."""
    began = time.perf_counter()
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def main(pairs: int) -> None:
    """Measure *pairs* runs of each variant, alternating."""
    times: dict[str, list[float]] = {name: [] for name in VARIANTS}
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "test_empty.py").write_text("def test_nothing() -> None:\n    pass\n")
        for name, command in VARIANTS.items():
            seconds(command, folder)
            times[name].clear()
        for _ in range(pairs):
            for name, command in VARIANTS.items():
                times[name].append(seconds(command, folder))
    for name, values in times.items():
        quartiles = statistics.quantiles(values, n=4)
        spread = 1000 * (quartiles[2] - quartiles[0])
        median = 1000 * statistics.median(values)
        sys.stdout.write(f"{name:<14} median {median:6.1f} ms, quartiles {spread:.1f} ms apart\n")
    differences = [with_it - without for with_it, without in zip(*times.values(), strict=True)]
    sys.stdout.write(
        f"difference     median {1000 * statistics.median(differences):6.1f} ms, n = {pairs}\n"
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 15)
