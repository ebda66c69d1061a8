"""Further arguments of the router: what the plan sets, what no router knows, and the policy."""

from __future__ import annotations

import argparse
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import pytest

from pytest_pdserve.backends.planned import plan_topology
from pytest_pdserve.plan.router_flags import RELEASES
from pytest_pdserve.plan.router_flags import WRITTEN
from pytest_pdserve.plan.router_flags import flags_in_help
from pytest_pdserve.plan.router_flags import flags_of_all_releases
from pytest_pdserve.plan.router_flags import flags_of_release
from pytest_pdserve.plan.router_flags import unknown_router_args
from pytest_pdserve.serving.provenance import fingerprint
from pytest_pdserve.serving.provenance import measured_on
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.sources import changes
from pytest_pdserve.values.system import RouterSpec
from pytest_pdserve.values.system import System
from pytest_pdserve.values.topology import Topology
from tests.support.systems import LEAST
from tests.support.systems import refused

CASE = Path(__file__).parents[1] / "data" / "cases" / "router_args.toml"
NEWEST = RELEASES[-1]


def routed(system: System, *args: str, topology: str = "1p1d", **more: tuple[str, ...]) -> str:
    """The words of the router's command, as they are planned."""
    changed = replace(system, router=RouterSpec(args=args, **more))
    router = plan_topology(changed, Topology.parse(topology)).launch.router
    assert router is not None
    return " ".join(router.argv)


def test_the_reported_case_is_refused_when_the_file_is_read(tmp_path: Path) -> None:
    file = tmp_path / "mine" / "system.toml"
    assert refused(tmp_path, LEAST + CASE.read_text()) == (
        f"{file}: /router/args/2: --port repeats what the plan sets ([ports] http says it); "
        "remove it"
    )


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--port=1"], "0: --port repeats what the plan sets ([ports] http says it)"),
        (["--host", "h"], "0: --host repeats what the plan sets ([cluster] bind_host says it)"),
        (["--log-level", "warn", "--prefill", "u"], "2: --prefill repeats what the plan sets (the"),
        (["--decode", "u"], "0: --decode repeats what the plan sets (the topology says it)"),
        (["--worker-urls", "u"], "0: --worker-urls repeats what the plan sets (the topology says"),
        (["--worker_urls=u"], "0: --worker-urls repeats what the plan sets (the topology says it)"),
        (["--work", "u"], "0: --work repeats what the plan sets by --worker-urls (the topology "),
        (["--pd-disaggregation"], "0: --pd-disaggregation repeats what the plan sets by --vllm-pd"),
        (["--prometheus-port", "1"], "0: --prometheus-port repeats what the plan sets ([ports] "),
        (["--prometheus-host", "h"], "0: --prometheus-host repeats what the plan sets ([cluster]"),
        (["--intra-node-data-parallel-size=2"], "0: --intra-node-data-parallel-size repeats what "),
        (["--api-key", "k"], "0: gives the secret --api-key a value: remove it, the session makes"),
    ],
    ids=lambda each: " ".join(each) if isinstance(each, list) else "",
)
def test_what_the_plan_sets_is_refused_when_the_file_is_read(
    args: list[str], said: str, tmp_path: Path
) -> None:
    file = tmp_path / "mine" / "system.toml"
    text = f"{LEAST}[router]\nargs = {args}\n"
    assert refused(tmp_path, text).startswith(f"{file}: /router/args/{said}")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (
            ("--max-trees", "9"),
            "0: --max-trees is not a flag of vllm-router 0.1.9 to 0.1.17; correct it, or name "
            "it in router.extra_flags if your router has it",
        ),
        (("--log-level", "warn", "--helpp"), "2: --helpp is not a flag of vllm-router 0.1.9 to "),
        (("--max-tree", "9"), "0: --max-tree is not a flag of vllm-router 0.1.9 to 0.1.17; "),
        (("--max_tree_size", "9"), "0: --max_tree_size is not a flag of vllm-router 0.1.9 to "),
        (("-p", "9"), "0: -p is not a flag of vllm-router 0.1.9 to 0.1.17; "),
        (("--help",), "0: --help is not a flag of vllm-router 0.1.9 to 0.1.17; "),
        (
            ("--policy", "fastest"),
            "0: --policy 'fastest': vllm-router 0.1.9 to 0.1.17 takes cache_aware, power_of_two, "
            "random, round_robin, consistent_hash, kv_aware, sticky_least_loaded",
        ),
        (("--decode-policy=fastest",), "0: --decode-policy 'fastest': vllm-router 0.1.9 to "),
        (("--policy",), "0: --policy '': vllm-router 0.1.9 to 0.1.17 takes cache_aware, "),
    ],
    ids=lambda each: " ".join(each) if isinstance(each, tuple) else "",
)
def test_what_no_router_knows_is_refused_before_nodes_are_acquired(
    args: tuple[str, ...], said: str, p5_efa: System
) -> None:
    with pytest.raises(ConfigError) as caught:
        routed(p5_efa, *args)
    assert str(caught.value).startswith(f"{p5_efa.source}: /router/args/{said}")


def test_a_flag_of_a_newer_router_can_be_named(p5_efa: System) -> None:
    argv = routed(p5_efa, "--new-flag", "1", extra_flags=("--new-flag",))
    assert argv.endswith(" --new-flag 1")


def test_arguments_do_not_matter_where_there_is_no_router(p5_efa: System) -> None:
    changed = replace(p5_efa, router=RouterSpec(args=("--no-such-flag",)))
    assert plan_topology(changed, Topology.parse("dp")).launch.router is None


@pytest.mark.parametrize(
    ("args", "topology", "argv"),
    [
        ((), "1p1d", "--policy consistent_hash --vllm-pd-disaggregation "),
        ((), "route2", "--policy round_robin --worker-urls "),
        (("--policy", "power_of_two"), "1p1d", "--vllm-pd-disaggregation "),
        (("--policy=power_of_two",), "route2", "--worker-urls "),
        (
            ("--decode-policy", "random"),
            "1p1d",
            "--policy consistent_hash --vllm-pd-disaggregation ",
        ),
    ],
    ids=["plan's", "plan's without prefill", "own", "own in one word", "of decode alone"],
)
def test_a_policy_of_the_system_replaces_the_plans(
    args: tuple[str, ...], topology: str, argv: str, p5_efa: System
) -> None:
    own = " ".join(("", *args))
    planned = routed(p5_efa, *args, topology=topology).partition(" {image} ")[2]
    assert planned.startswith(argv)
    assert planned.endswith(own)
    assert planned.count("--policy") == 1


def test_a_policy_of_the_system_is_a_difference_from_the_baseline(p5_efa: System) -> None:
    other = replace(p5_efa, router=RouterSpec(args=("--policy", "power_of_two")))
    host = {"cpu": "EPYC"}
    assert changes(measured_on(host, p5_efa), measured_on(host, other)) == [
        'router.args was not set, is ["--policy", "power_of_two"]'
    ]
    assert fingerprint(host, p5_efa) != fingerprint(host, other)


def test_each_release_knows_what_came_with_it_and_lost_what_went() -> None:
    assert "--kv-connector" not in flags_of_release("0.1.13")
    assert "--kv-connector" in flags_of_release("0.1.14")
    assert "--tokenizer-path" in flags_of_release("0.1.14")
    assert "--tokenizer-path" not in flags_of_release("0.1.15")
    assert "consistent_hash" not in flags_of_release("0.1.10")["--policy"]
    assert set(flags_of_all_releases()) > set(flags_of_release(NEWEST))


def test_the_table_has_the_flags_of_the_installed_router() -> None:
    args = pytest.importorskip("vllm_router.router_args", reason="vllm-router is not installed")
    release = metadata.version("vllm-router")
    assert release in RELEASES, "read the flags of this release into plan/router_flags.py"
    parser = argparse.ArgumentParser()
    args.RouterArgs.add_cli_args(parser, use_router_prefix=False)
    installed = {
        name: tuple(each.choices or ())
        for each in parser._actions  # noqa: SLF001 - argparse tells its options nowhere else
        for name in each.option_strings
    }
    plans = {"-h", "--help", *(name for each in WRITTEN for name in (each.flag, *each.aliases))}
    table = flags_of_release(release)
    assert {*table} == {*installed} - plans
    for policy in ("--policy", "--prefill-policy", "--decode-policy"):
        assert sorted(table[policy]) == sorted(installed[policy])


HELP = """usage: vllm-router [-h] [--host HOST]
                   [--policy {random,round_robin}]

Examples:
    --not-an-option http://x

options:
  -h, --help            show this help message and exit
  --host HOST           Host; see --other-flag (default: 127.0.0.1)
  --policy {random,round_robin}
                        Policy to use. In PD mode --third-flag
  -v, --verbose         Say more
"""


def test_flags_are_read_from_what_a_router_prints() -> None:
    assert flags_in_help(HELP) == {
        "--help": (),
        "--host": (),
        "--policy": ("random", "round_robin"),
        "--verbose": (),
    }
    assert flags_in_help("no options here\n") == {}


def test_a_negative_number_is_a_value_and_not_a_flag() -> None:
    known = {"--router-temperature": ()}
    assert list(unknown_router_args(["--router-temperature", "-1"], known, "it")) == []
