"""Make ``baselines/article/figures.toml`` of the values that were read off the article's plots.

    python benchmarks/article_figures.py article.json > baselines/article/figures.toml

``article.json`` is a list with one object per value: ``topology``, ``input_len``, ``output_len``,
``metric``, ``value``, ``uncertainty`` and how it was read.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

HEAD = """\
# The article's 160 values as read off its plots: 5 topologies x 8 cells x 4 means, one run each.
# Made by benchmarks/article_figures.py. No machine stands behind it; it never becomes a baseline.
schema_version = 1
title = "Is Disaggregated Prefill/Decode a Silver Bullet for LLM Serving?"
date = "2026-03-10"
versions = { vllm = "0.15.1", nixl = "0.10.1" }
method = \"\"\"Digitised plots: markers and lines found below a pixel, axes by tick labels, and \\
the two decimals that were printed; checked by output tok/s = req/s x output length.\"\"\"
"""
TOPOLOGIES = ("dp", "route2", "route4", "1p3d", "2p2d")
NUM_PROMPTS = 1024


def records(values: list[dict[str, Any]]) -> str:
    """The TOML of all cells, by topology, input and output length."""
    cells: dict[tuple[int, int, int], list[str]] = {}
    for entry in values:
        key = (TOPOLOGIES.index(entry["topology"]), entry["input_len"], entry["output_len"])
        cells.setdefault(key, []).append(
            f"metrics.{entry['metric']} = "
            f"{{ value = {float(entry['value'])}, uncertainty = {float(entry['uncertainty'])} }}"
        )
    return "".join(
        f'\n[[record]]\nsource = "figure"\nruns = 1\ntopology = "{TOPOLOGIES[topology]}"\n'
        f"input_len = {input_len}\noutput_len = {output_len}\nnum_prompts = {NUM_PROMPTS}\n"
        + "".join(f"{line}\n" for line in sorted(lines))
        for (topology, input_len, output_len), lines in sorted(cells.items())
    )


if __name__ == "__main__":
    sys.stdout.write(HEAD + records(json.loads(Path(sys.argv[1]).read_text())))
