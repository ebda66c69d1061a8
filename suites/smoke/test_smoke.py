"""Does the topology answer, over the path that it stands for, with the right tokens?"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_pdserve.serving.deployment import Deployment

TOKENS = 24


def _prompts(count: int) -> list[str]:
    """Prompts of 121 words that differ in the first word only, so that a lost KV cache shows."""
    words = [a + b for a, b in itertools.product(("bo", "fe", "gi", "ku", "lo"), repeat=2)]
    tail = " ".join(words[number * 7 % len(words)] for number in range(120))
    return [f"{first} {tail}" for first in words[:count]]


def test_answers(pdserve_deployment: Deployment) -> None:
    """The endpoint generates as many tokens as it was asked for."""
    answer = pdserve_deployment.completions.ask(
        pdserve_deployment.url, _prompts(1)[0], tokens=TOKENS
    )
    assert answer["usage"]["completion_tokens"] == TOKENS
    assert answer["choices"][0]["text"].strip()


@pytest.mark.pdserve_requires(disaggregated=True)
def test_path_is_proven(pdserve_deployment: Deployment) -> None:
    """Every request moves one KV cache from a prefill to a decode instance, and none fails."""
    instances = {server.name: server.role for server in pdserve_deployment.instances}
    if not instances:
        pytest.skip("the instances behind this endpoint cannot be asked for their counters")
    before = pdserve_deployment.scrape()
    prompts = _prompts(5)
    for prompt in prompts:
        pdserve_deployment.completions.text(pdserve_deployment.url, prompt, tokens=2)
    after = pdserve_deployment.scrape()

    def counted(sample: str, role: str) -> float:
        pairs = [
            (before[n].get(sample), after[n].get(sample)) for n in after if instances[n] == role
        ]
        assert all(a is not None and b is not None for a, b in pairs), f"{sample} is not shown"
        return sum((b or 0.0) - (a or 0.0) for a, b in pairs)

    assert counted("vllm:nixl_xfer_time_seconds_count", "decode") == len(prompts)
    assert counted("vllm:nixl_num_failed_transfers_total", "decode") == 0
    assert counted("vllm:request_success_total", "prefill") == len(prompts)
    assert counted("vllm:request_success_total", "decode") == len(prompts)


def test_greedy_output_is_a_single_instances(pdserve_deployment: Deployment) -> None:
    """Greedy tokens through the topology are those of one instance that does all by itself."""
    if not pdserve_deployment.instances:
        pytest.skip("the instances behind this endpoint cannot be asked by themselves")
    alone = str(pdserve_deployment.instances[-1].url)
    completions = pdserve_deployment.completions
    prompts = _prompts(5)
    expected = [completions.text(alone, prompt, tokens=TOKENS) for prompt in prompts]
    assert len(set(expected)) == len(prompts), "outputs do not depend on the prompt's first word"
    through = [
        completions.text(pdserve_deployment.url, prompt, tokens=TOKENS) for prompt in prompts
    ]
    assert through == expected
