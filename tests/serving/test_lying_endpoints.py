"""vLLM's own client against endpoints that answer with HTTP 200 and are wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.endpoints import completions
from tests.support.endpoints import endpoint
from tests.support.endpoints import page

pytestmark = pytest.mark.vllm

ROOT = Path(__file__).parents[2]
COUNTED = "4 prompts sent one by one have 64 output tokens by the server's usage, but it counts "
FAULT = "answers: a prompt sent alone after the run: {url} "
WAYS = {
    "error_mid": f"{FAULT}answered with an error in its stream: engine stopped",
    "error_end": f"{FAULT}answered with an error in its stream: engine stopped",
    "length_stop": f"{FAULT}ended a completion with finish_reason 'error'",
    "stops": f"{FAULT}stopped in the middle of a completion",
    "one chunk of 10 MB": f"{FAULT[:-1]}/v1/completions answered with more than 1 MiB",
    "empty_text": "completed: 16 of 16 requests claim 256 tokens and have no text",
    "same_token": f"answers: {COUNTED}4 in their texts, sent back as prompts: they consist of '!'",
    "prompt_x5": "tokens: 2560 input tokens, expected 512",
    "refuse_busy": "completed: 8 of 16 requests completed, 8 failed",
    "garbage": "completed: none of 16 requests completed, 16 failed",
    "redirect loop": "completed: none of 16 requests completed, 16 failed",
}
SLOW = [pytest.param(way, said, id=way, marks=pytest.mark.slow) for way, said in WAYS.items()]
MISSING = f"answers: {COUNTED}32 in their texts, sent back as prompts: text is missing"


def measured(way: str, folder: Path) -> tuple[int, str, str]:
    """Return the exit code, what was printed in one line, and the endpoint's URL."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "suites/sweep"]
    command += ["-k", "32-16", "--topology", "dp", "--pdserve-runs", str(folder / "runs")]
    unlisted = {"/v1/models": page(404, b"")}  # so that the tiny model's tokenizer is its own
    with endpoint({**unlisted, "/v1/completions": completions(way)}) as server:
        ran = subprocess.run(
            [*command, "--pdserve-base-url", server.url],
            cwd=ROOT,
            env={**os.environ, "XDG_STATE_HOME": str(folder / "state")},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
    return ran.returncode, " ".join(ran.stdout.split()), server.url


@pytest.mark.parametrize(
    ("way", "said"),
    [pytest.param("cut_text", MISSING, id="cut_text", marks=pytest.mark.slow), *SLOW],
)
def test_a_lie_is_named(way: str, said: str, tmp_path: Path) -> None:
    code, printed, url = measured(way, tmp_path)
    assert code == 1, printed
    assert said.format(url=url) in printed


@pytest.mark.slow
def test_answers_from_a_cache_are_valid(tmp_path: Path) -> None:
    code, printed, _ = measured("cached", tmp_path)
    assert code == 0, printed
    assert "1 passed" in printed
