"""The five topologies in one allocation, with the records that the local cluster makes of them."""

from __future__ import annotations

import re
import sys
from typing import Any

import pytest

from pytest_pdserve.backends.planned import plan_topology
from pytest_pdserve.backends.systems import load_system
from pytest_pdserve.values.topology import Topology
from tests.support.house import SYSTEM
from tests.support.house import House
from tests.support.house import wait_text
from tests.support.onehost import TABLES
from tests.support.onehost import OneHost
from tests.support.onehost import said

pytestmark = [pytest.mark.slurm, pytest.mark.xdist_group("slurm-a")]

FIVE = ("dp", "route2", "route4", "1p3d", "2p2d")
SLURM_ONLY = {"cluster", "fingerprint", "host"}
MEASURED = re.compile(
    r"(_ms|_s|_at|seconds|throughput|goodput|duration|date|ttfts|itls|latencies|start_times|message)$"
)


def asked_for(host: OneHost) -> int:
    """Jobs that this Slurm was ever asked for."""
    lines = host.ask("scontrol", "show", "config")
    return int(next(line.split()[-1] for line in lines if line.startswith("NEXT_JOB_ID")))


def seedless(words: list[Any]) -> list[Any]:
    """An argument list without the client's seed, which is another in every session."""
    after = {n + 1 for n, word in enumerate(words) if word == "--seed"}
    return ["SEED" if n in after else word for n, word in enumerate(words)]


def comparable(record: dict[str, Any]) -> dict[str, Any]:
    """A record without what differs from run to run, or belongs to the kind of cluster."""
    run, nodes = record["session"]["id"], record["nodes"]

    def plain(value: Any, key: str = "") -> Any:
        if key == "stall_s":  # of runs that are over before the first look, nothing is known
            return "seen"
        if isinstance(value, dict):
            table = "" if key != "timings_s" else "_s"
            return {name: plain(each, f"{name}{table}") for name, each in value.items()}
        if isinstance(value, list):
            return "numbers" if MEASURED.search(key) else [plain(w, key) for w in seedless(value)]
        if isinstance(value, str):
            for index, node in enumerate(nodes):
                value = re.sub(rf"\b{node}\b", f"node{index}", value)
            value = re.sub(r"\b2[789]\d{3}\b", "PORT", value.replace(run, "RUN"))
        return type(value).__name__ if MEASURED.search(key) else value

    kept = {key: value for key, value in record.items() if key not in SLURM_ONLY}
    # The two sessions run on one machine, and each is busy work of others to the other.
    kept["client_node"] = sorted(kept["client_node"])
    kept["findings"] = [each for each in kept["findings"] if each["check"] != "client_node"]
    return {key: plain(value, key) for key, value in kept.items()}


def pattern(word: str, run: str) -> str:
    """What a word of a plan may be once nodes are known: their addresses, and ports of its own."""
    text = re.escape(word).replace(re.escape("{run folder}"), re.escape(run))
    text = text.replace(re.escape("{seed}"), r"\d+")
    text = re.sub(r"\\{node\d\\\.(address|interface)\\}", r"[\\w.:-]+", text)
    return re.sub(r"(?<!\d)2[789]\d{3}(?!\d)", r"\\d{5}", text)


def check_planned(house: House, record: dict[str, Any]) -> None:
    """Compare every process of *record* with what ``pdserve plan`` prints."""
    system = load_system("stub", [house.path / "baselines"])
    planned = plan_topology(system, Topology.parse(record["topology"])).commands
    ran = {each["name"]: each for each in record["processes"]}
    assert list(ran) == [command.name for command in planned]
    run = str(house.runs / record["session"]["id"])
    for command in planned:
        each = ran[command.name]
        assert each["node"] == command.node.replace("node", "pd")
        assert each["env"].keys() == dict(command.env).keys()
        assert len(each["argv"]) == len(command.argv)
        said = [*zip(command.argv, each["argv"], strict=True)]
        said += [(value, each["env"][key]) for key, value in command.env]
        unlike = [(plan, real) for plan, real in said if not re.fullmatch(pattern(plan, run), real)]
        assert unlike == []


@pytest.mark.slow
def test_records_are_the_local_clusters_but_for_the_nodes(
    slurm_house: House, slurm: OneHost
) -> None:
    slurm_house.tables = SYSTEM
    slurm_house.system()
    command = [sys.executable, "-m", "pytest", "suites", "--system=stub", "--topology=all"]
    command.append("--pdserve-no-record")  # two sessions of unlike hardware share no baseline
    log = slurm_house.path / "local.log"
    beside = slurm_house.spawn(command, log)
    wait_text(beside, log, "collected 10 items")
    slurm_house.tables = TABLES
    slurm_house.system()
    jobs = asked_for(slurm)

    text = said(slurm_house, "--topology", "all", "--pdserve-no-record")

    beside.wait(60)
    assert "5 passed" in log.read_text(), log.read_text()
    assert "5 passed" in text, text
    assert asked_for(slurm) == jobs + 1
    assert text.count("Slurm job ") == 1
    records = slurm_house.records()
    remote = {r["topology"]: r for r in records if r["cluster"]["kind"] == "slurm"}
    local = {r["topology"]: r for r in records if r["cluster"]["kind"] == "local"}
    assert set(local) == set(remote) == set(FIVE)
    for record in remote.values():
        cluster = record["cluster"]
        assert (cluster["kind"], cluster["job_id"]) == ("slurm", str(jobs))
        assert cluster["nodes"] == record["nodes"] == ["pd0", "pd1", "pd2", "pd3"]
        assert (cluster["lent"], cluster["excluded"], cluster["container"]) == (False, {}, "none")
        assert cluster["client_node"] == "pd0"
        assert record["processes"][-1]["node"] == "pd0"
        assert {"kind", "job_id", "partition", "queued_s"} <= set(cluster)
    for topology in FIVE:
        assert set(local[topology]) == set(remote[topology])
        assert comparable(remote[topology]) == comparable(local[topology])
        check_planned(slurm_house, remote[topology])
