"""A project in pytester's folder on a cluster that is only simulated: numbers are exact."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
from pathlib import Path
from typing import Any

import pytest

from pytest_pdserve.values.baseline import Key
from pytest_pdserve.values.metrics import METRICS
from tests.support.drawn import around
from tests.support.drawn import write_nights
from tests.support.house import WITHOUT_UNUSED

ROOT = Path(__file__).parents[2]
Values = Mapping[Key, Mapping[str, float]]
"""Value of each judged metric, by topology and workload id."""
DP = ("-k", "dp and 512-256")
"""Options of a session of one cell."""
CELL = "dp random-512-256-n64"
"""What the summary calls it."""


def lines(result: pytest.RunResult, beginning: str) -> list[str]:
    """Return the lines that begin so."""
    return [line for line in result.outlines if line.startswith(beginning)]


@dataclass(kw_only=True)
class SimulatedProject:
    """Three short cells on four nodes that do not exist; each test changes what it is about."""

    pytester: pytest.Pytester
    topologies: str = "1p3d,dp"
    sweep: dict[str, object] = field(
        default_factory=lambda: {
            "input_lens": [512, 1024, 2048],
            "output_lens": [256],
            "num_prompts": 64,
        }
    )

    def __post_init__(self) -> None:
        shutil.copytree(ROOT / "suites" / "sweep", self.path / "suites" / "sweep")
        self.system()

    @property
    def path(self) -> Path:
        return self.pytester.path

    @property
    def baseline(self) -> Path:
        """The baseline of the system, which is called ``sim``."""
        return self.path / "baselines" / "sim" / "sweep.json"

    @property
    def expected(self) -> Path:
        """The expected changes of the system."""
        return self.baseline.with_name("expected.toml")

    def system(
        self,
        *,
        judgement: Mapping[str, object] | None = None,
        floors: Mapping[str, float] | None = None,
        **simulation: object,
    ) -> None:
        """Write the system file: what a night is like, and how it is judged."""
        tables: dict[str, Mapping[str, object]] = {
            "cluster": {"kind": "simulated", "nodes": 4, "gpus_per_node": 8},
            "model": {"path": "deepseek-ai/DeepSeek-V2-Lite"},
            "sweep": self.sweep,
            "judgement": judgement or {},
            "judgement.floors": floors or {},
            "simulation": simulation,
        }
        lines = ["schema_version = 1", 'description = "simulated"']
        for title, table in tables.items():
            lines += [f"[{title}]", *(f"{k} = {json.dumps(v)}" for k, v in table.items())]
        self.baseline.parent.mkdir(parents=True, exist_ok=True)
        self.baseline.with_name("system.toml").write_text("\n".join(lines) + "\n")

    def run(self, *arguments: str) -> pytest.RunResult:
        """Pytest in this process."""
        asked = ("suites", "--system", "sim", "--topology", self.topologies, *WITHOUT_UNUSED)
        return self.pytester.runpytest_inprocess(*asked, *arguments)

    def records(self) -> list[dict[str, Any]]:
        """Every record of every session, oldest first."""
        paths = self.path.glob("runs/*/*/*.record.json")
        found = [json.loads(path.read_text()) for path in paths]
        return sorted(found, key=lambda record: str(record["started_at"]))

    def starts(self) -> list[tuple[str, int, int]]:
        """Topology, length of prompts and start of every run, in the order they were made."""
        return [(r["topology"], r["workload"]["input_len"], r["start"]) for r in self.records()]

    def nights(self, topology: str, input_len: int = 512) -> list[dict[str, Any]]:
        """Nights of a cell as the baseline's file has them."""
        cells = json.loads(self.baseline.read_text())["cells"]
        found: list[dict[str, Any]] = cells[topology][workload(input_len)]["nights"]
        return found

    def measured(self) -> Values:
        """What one clean session of all cells measures; nothing of it is left."""
        self.run("--pdserve-no-record", "--pdserve-first-runs", "1")
        found = {
            (record["topology"], workload(record["workload"]["input_len"])): {
                name: record["metrics"][name] for name in METRICS.times
            }
            for record in self.records()
        }
        shutil.rmtree(self.path / "runs")
        return found

    def draw(
        self,
        values: Values,
        *,
        slow: Mapping[tuple[str, int], float] | None = None,
        spread: float = 0.001,
        nights: int = 20,
    ) -> None:
        """Write a baseline of nights around *values*.

        :param slow: fraction by which a cell will look slower, by topology and length of prompts.
        """
        factors = {(topology, workload(n)): 1 + by for (topology, n), by in (slow or {}).items()}
        write_nights(
            self.baseline,
            {
                key: {
                    name: around(
                        value * factors.get(key, 1.0) ** (1 if _is_rate(name) else -1),
                        spread=spread,
                        seed=f"{key}{name}",
                        nights=nights,
                    )
                    for name, value in metrics.items()
                }
                for key, metrics in values.items()
            },
        )

    def expect(self, **fields: object) -> None:
        """Write an expected change; without more it covers all until the end of time."""
        entry = {"until": "9999-12-31", "owner": "ann", "reason": "vllm#1", **fields}
        lines = ["schema_version = 1", "[[expected]]"]
        lines += [f"{name} = {json.dumps(value)}" for name, value in entry.items()]
        self.expected.write_text("\n".join(lines) + "\n")


def _is_rate(metric: str) -> bool:
    return METRICS[metric].better == "higher"


def workload(input_len: int) -> str:
    """Id of a workload of the project's sweep."""
    return f"random-{input_len}-256-n64"
