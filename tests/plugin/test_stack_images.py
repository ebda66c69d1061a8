"""Gate and rehearsal of container images: a stand-in for Docker, stub engines."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from pytest_pdserve.commands.main import main
from pytest_pdserve.values.exit_codes import ExitCode
from pytest_pdserve.values.gate import GateVerdict
from tests.plugin.test_plan_is_run import DOCKER
from tests.support.gates import cut_off
from tests.support.gates import gates
from tests.support.gates import handlers_kept
from tests.support.gates import result_in
from tests.support.gates import run_gate
from tests.support.house import House

pytestmark = pytest.mark.slow

FIRST = ("--max-combinations", "1")
"""Prefill of A, decode of B."""
OWN, NEXT, WRONG = "nixl:1", "nixl:2", "nixl:wrong"
INSIDE = """words = list(words)
if image == "nixl:wrong":
    os.environ["PDSTUB_FAULTS"] = json.dumps({"*": {"text": "wrong"}})
if words[-1].endswith("versions.py"):
    vllm = "0.32.0" if image == "nixl:1" else "0.33.0"
    print(json.dumps({"vllm": vllm, "nixl": "1.5.1", "vllm-router": "0.1.17"}))
    sys.exit(0)
os.execvp("""
"""Replaces the end of the stand-in: vLLM's version depends on the image, and ``nixl:wrong`` returns
wrong text."""


@pytest.fixture
def digest(house: House) -> Path:
    """A system in containers; the file has the beginning of every image's digest."""
    path, folder = house.path / "digest", house.path / "bin"
    path.write_text("sha256:0a")
    folder.mkdir()
    text = DOCKER.format(python=sys.executable, log=str(house.path / "docker.jsonl"))
    text = text.replace('"sha256:0a"', f"open({str(path)!r}).read() + args[2]")
    engine = folder / "docker"
    engine.write_text(text.replace("os.execvp(", INSIDE))
    engine.chmod(0o755)
    house.monkeypatch.setenv("PATH", f"{folder}:{Path(sys.executable).parent}:/usr/bin:/bin")
    house.system(
        cluster={"nodes": 1},
        sweep={"num_prompts": 1, "max_concurrency": 1},
        container={"kind": "docker", "image": OWN, "devices": [], "gpus": ""},
    )
    return path


def test_servers_run_in_the_image_of_their_stack_and_the_client_in_the_systems(
    house: House, digest: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stacks = ("--baseline", "current", "--candidate", f"image:{WRONG}")
    assert run_gate("--system", "stub", "--topology", "dp", *stacks) == ExitCode.FAIL
    (folder,) = gates(house.runs)
    result = result_in(folder)
    assert (result.verdict, result.starts) == (GateVerdict.NO_GO, 4)
    assert result.components == ("image",)
    assert result.faults[0].startswith("wrong tokens: dp: B's greedy answers")
    assert "vllm: 0.32.0 with A, 0.33.0 with B" in " ".join(result.notes)
    for path in folder.rglob("*.record.json"):
        record = json.loads(path.read_text())
        image = WRONG if "B-dp" in str(path) else OWN
        assert record["cluster"]["image"] == image
        ran_in = {each["name"]: {OWN, WRONG} & {*each["argv"]} for each in record["processes"]}
        assert ran_in.pop("aggregated[0]") == {image}
        assert [*ran_in.values()] == [{OWN}]
        assert record["versions"]["vllm"] == ("0.33.0" if image == WRONG else "0.32.0")

    cut_off(folder, 3)
    digest.write_text("sha256:0b")
    assert run_gate("--resume", folder) == ExitCode.ERROR
    assert (
        f"image {OWN} of stack A is now sha256:0b{OWN}, and was sha256:0a{OWN} at earlier starts"
    ) in capsys.readouterr().out


def test_each_server_of_a_rehearsal_runs_in_the_image_of_its_side(
    house: House, digest: Path
) -> None:
    house.monkeypatch.chdir(house.path)
    house.system(
        cluster={"nodes": 2},
        container={"kind": "docker", "image": OWN, "devices": [], "gpus": ""},
    )
    sides = ("--from", "current", "--to", f"image:{NEXT}")
    with handlers_kept():
        code = main(["rehearse", *sides, "--system", "stub", "--output", "out", *FIRST])
    assert code == ExitCode.OK
    (found,) = json.loads(Path("out/rehearsal.json").read_text())["results"]
    assert (found["outcome"], found["sides_agree"]) == ("works", True)
    assert found["versions"] == {
        "prefill[0]": {"vllm": "0.32.0", "nixl": "1.5.1"},
        "decode[0]": {"vllm": "0.33.0", "nixl": "1.5.1"},
        "router": {"vllm-router": "0.1.17"},
    }
    asked = [json.loads(line) for line in (house.path / "docker.jsonl").read_text().splitlines()]
    ran_in = {
        role: {OWN, NEXT} & {*words}
        for words in asked
        for role in ("prefill[0]", "decode[0]", "router")
        if words[0] == "run" and f"pdserve.name={role}" in words
    }
    assert ran_in == {"prefill[0]": {OWN}, "decode[0]": {NEXT}, "router": {OWN}}
