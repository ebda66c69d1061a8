"""One start of instances for several topologies: ``--pdserve-share-engines``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.house import House

SHARE = ("--topology", "route4,dp,1p3d,2p2d", "--pdserve-share-engines")


def by_topology(house: House) -> dict[str, dict[str, Any]]:
    return {record["topology"]: record for record in house.records()}


@pytest.mark.slow
def test_alike_topologies_share_one_start_with_a_router_each(house: House) -> None:
    house.suites("sweep")
    result = house.run(*SHARE)
    result.assert_outcomes(passed=4, skipped=4)
    # What shares follows each other, whatever was asked for between.
    order = [line.split(":")[0] for line in result.stdout.lines if "path proven" in line]
    assert order == [f"pdserve {name}" for name in ("route4", "1p3d", "2p2d", "dp")]
    records = by_topology(house)
    assert {name: each["shared_start"] for name, each in records.items()} == {
        "dp": None,
        "route4": 0,
        "1p3d": 0,
        "2p2d": 0,
    }
    argvs = {
        name: {p["name"]: p["argv"] for p in record["processes"] if p["name"] != "client"}
        for name, record in records.items()
    }
    engines = [each for each in argvs["route4"] if each.startswith("shared")]
    assert engines == [f"shared[{number}]" for number in range(4)]
    for name in ("1p3d", "2p2d"):
        assert [argvs[name][each] for each in engines] == [argvs["route4"][e] for e in engines]
    routers = {" ".join(argvs[name]["router"]) for name in ("route4", "1p3d", "2p2d")}
    assert len(routers) == 3
    assert sum("--vllm-pd-disaggregation" in router for router in routers) == 2
    assert all("kv_both" in argvs["1p3d"][each] for each in engines)
    ports = [word for router in routers for word in router.split() if word.isdecimal()]
    assert len(set(ports)) >= 6
    # The prefix caches know what other topologies were sent: each has prompts of its own.
    assert len({prompt_seed(records[name]) for name in ("route4", "1p3d", "2p2d")}) == 3


def prompt_seed(record: dict[str, Any]) -> str:
    argv = record["processes"][-1]["argv"]
    return str(argv[argv.index("--seed") + 1])


@pytest.mark.slow
def test_fresh_starts_are_shared_too(house: House) -> None:
    house.suites("sweep")
    house.run(
        *("--topology", "route4,1p3d", "--pdserve-share-engines", "--pdserve-first-runs", "2")
    )
    starts = {(r["topology"], r["start"], r["shared_start"]) for r in house.records()}
    assert starts == {("route4", 0, 0), ("route4", 1, 1), ("1p3d", 0, 0), ("1p3d", 1, 1)}
    logs = sorted(path.name for path in Path(next(house.runs.glob("*/shared"))).iterdir())
    assert logs == ["logs", "logs-2"]
    (times,) = house.runs.glob("*/phases.json")
    assert len(json.loads(times.read_text())["starts"]) == 2


def test_instances_that_do_not_come_up_are_told_once_for_each_topology(house: House) -> None:
    house.suites("sweep")
    house.faults(shared_2={"exit_at_start": 3})
    result = house.run("--topology", "route4,1p3d", "--pdserve-share-engines")
    said = result.stdout.str()
    assert result.parseoutcomes()["errors"] == 2
    assert "shared[2] on local2 exited with code 3 " in said
    assert not list(house.runs.glob("*/shared/logs-2"))


@pytest.mark.slow
def test_instances_that_ended_are_started_anew_for_the_next_topology(house: House) -> None:
    house.suites("sweep")
    # The first cell sends two requests to each instance.
    house.faults(shared_1={"exit_after_streams": 2})
    house.run("--topology", "route4,1p3d", "--pdserve-share-engines")
    logs = sorted(path.name for path in next(house.runs.glob("*/shared")).iterdir())
    assert logs == ["logs", "logs-2"]


def test_an_endpoint_is_not_shared(house: House) -> None:
    house.suites("sweep")
    result = house.run("--pdserve-base-url", "http://127.0.0.1:1", "--pdserve-share-engines")
    assert result.ret == 4
    said = "[cluster] share_engines (--pdserve-share-engines) is for systems whose instances the "
    assert said in result.stderr.str()
