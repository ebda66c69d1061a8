"""Sanity: each check in a run that passes it and in one that does not, with the numbers said."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pytest_pdserve.judge.client_checks import check_offered
from pytest_pdserve.judge.sanity import check_sanity
from pytest_pdserve.judge.sanity import checks
from pytest_pdserve.judge.server_checks import chance_hits
from pytest_pdserve.results.store import load_bench_result
from pytest_pdserve.values.counters import BY_NAME
from pytest_pdserve.values.counters import counted_per_rank
from pytest_pdserve.values.metrics import METRICS
from pytest_pdserve.values.model import KvShape
from pytest_pdserve.values.observation import ControlAnswers
from pytest_pdserve.values.observation import Observation
from pytest_pdserve.values.record import NodeLoad
from pytest_pdserve.values.record import ServedCounts
from pytest_pdserve.values.result import BenchResult
from pytest_pdserve.values.system import Sanity
from pytest_pdserve.values.topology import Topology
from pytest_pdserve.values.workload import UNKNOWN
from pytest_pdserve.values.workload import Workload
from tests.support.records import TIMES

MakeSeen = Callable[..., Observation]
WORKLOAD = Workload(input_len=512, output_len=256, num_prompts=4)
SHAREGPT = Workload(num_prompts=4, dataset="sharegpt")
BYTES = 4 * 512 * 1000
"""What 4 prompts of 512 tokens move, at 1000 bytes a token and whole blocks."""


@pytest.fixture
def make_seen(
    make_result: Callable[..., BenchResult], make_counts: Callable[..., ServedCounts]
) -> MakeSeen:
    """A factory of what was seen of a sound run of 1p2d.

    ``result``, ``prefill`` and ``decode`` replace fields of the result and of the counts.
    """

    def make(
        result: dict[str, Any] | None = None,
        prefill: dict[str, Any] | None = None,
        decode: dict[str, Any] | None = None,
        **fields: Any,
    ) -> Observation:
        moved = {
            "requests": 2.0,
            "prompt_tokens": 1024.0,
            "generation_tokens": 512.0,
            "prompt_tokens_computed": 0.0,
            "kv_transfers": 2.0,
            "kv_bytes": BYTES / 2,
            "kv_failed": 0.0,
            "kv_expired": 0.0,
        }
        seen = Observation(
            topology=Topology.parse("1p2d"),
            workload=WORKLOAD,
            result=make_result(**(result or {})),
            served=(
                make_counts(
                    "prefill[0]", **{"kv_failed": 0.0, "kv_expired": 0.0, **(prefill or {})}
                ),
                make_counts("decode[0]", **{**moved, **(decode or {})}),
                make_counts("decode[1]", **moved),
            ),
            instances=3,
            kv_shape=KvShape(bytes_per_token=1000),
            client_cpu=0.5,
            vllm_version="0.32.0",
        )
        return replace(seen, **fields)

    return make


def said(seen: Observation) -> list[tuple[str, str, str]]:
    return [(f.check, f.severity, f.message) for f in check_sanity(seen)]


def test_a_sound_run_has_no_findings(make_seen: MakeSeen) -> None:
    assert said(make_seen()) == []


@pytest.mark.parametrize(
    ("result", "finding"),
    [
        (
            {"failed": None},
            (
                "completed",
                "unproven",
                "the client's result has no number of failed requests",
            ),
        ),
        (
            {"failed": 1},
            ("completed", "invalid", "4 of 4 requests completed, 1 failed"),
        ),
        (
            {"completed": 3, "errors": ("", " ", "Traceback\n  x\nTimeoutError: late\n", "no")},
            (
                "completed",
                "invalid",
                "3 of 4 requests completed, 0 failed; first error: TimeoutError: late",
            ),
        ),
        (
            {"completed": 5},
            ("completed", "invalid", "5 of 4 requests completed, 0 failed"),
        ),
        (
            {"total_output_tokens": 1023},
            ("tokens", "invalid", "1023 output tokens, expected 1024"),
        ),
        (
            {"total_input_tokens": 2052},
            ("tokens", "invalid", "2052 input tokens, expected 2048"),
        ),
        (
            {"raw": {"p99_ttft_ms": 0.0, "mean_itl_ms": 0.0}},
            ("zeros", "invalid", "p99_ttft_ms = 0, expected above 0"),
        ),
        (
            {"itl_s": ()},
            (
                "chunks",
                "unproven",
                "no entry per request (--save-detailed), so chunks cannot be compared with tokens; "
                "ITL is not judged",
            ),
        ),
        (
            {"itl_s": ((0.01,) * 127,) * 4},
            (
                "chunks",
                "note",
                "512 chunks for 1024 tokens (0.500 per token, at least 0.98); ITL is not judged, "
                "TPOT is",
            ),
        ),
    ],
    ids=[
        *("failed unknown", "one failed", "one missing", "one too many", "output", "input"),
        *("a zero", "no chunks", "two tokens a chunk"),
    ],
)
def test_what_the_client_wrote(
    make_seen: MakeSeen, result: dict[str, Any], finding: tuple[str, str, str]
) -> None:
    assert said(make_seen(result)) == [finding]


def test_chunks_void_itl_and_nothing_else(make_seen: MakeSeen) -> None:
    (finding,) = check_sanity(make_seen({"itl_s": ((0.01,) * 127,) * 4}))
    assert finding.voids == ("mean_itl_ms", "p50_itl_ms", "p90_itl_ms", "p99_itl_ms")


def test_a_few_merged_chunks_are_let_through(make_seen: MakeSeen) -> None:
    assert said(make_seen({"itl_s": ((0.01,) * 251,) * 4})) == []


def test_one_token_has_no_time_per_further_token(make_seen: MakeSeen) -> None:
    result = {
        "total_output_tokens": 4,
        "output_lens": (1,) * 4,
        "itl_s": ((),) * 4,
        "raw": {"mean_tpot_ms": 0.0, "mean_itl_ms": 0.0, "mean_ttft_ms": 5.0},
    }
    seen = make_seen(result, workload=replace(WORKLOAD, output_len=1))
    assert said(seen) == []
    assert not {"mean_tpot_ms", "mean_itl_ms"} & METRICS.measure(seen).keys()


def test_two_tokens_have_a_time_between_them(make_seen: MakeSeen) -> None:
    result = {
        "total_output_tokens": 8,
        "output_lens": (2,) * 4,
        "itl_s": ((0.01,),) * 4,
        "raw": {"mean_tpot_ms": 0.0, "mean_ttft_ms": 5.0},
    }
    seen = make_seen(result, workload=replace(WORKLOAD, output_len=2))
    assert said(seen) == [("zeros", "invalid", "mean_tpot_ms = 0, expected above 0")]


def test_lengths_of_another_dataset_are_not_held_to_what_was_asked(make_seen: MakeSeen) -> None:
    seen = make_seen({"total_output_tokens": 1000, "total_input_tokens": 2000}, workload=SHAREGPT)
    message = "2000 input and 1000 output tokens; the lengths of data set 'sharegpt' are unknown"
    assert said(seen)[0] == ("tokens", "unproven", message)


@pytest.mark.parametrize(
    ("unknown", "findings"),
    [
        ("input_len", ["tokens: 2048 input tokens; the expected number is unknown"]),
        ("output_len", ["tokens: 1024 output tokens; the expected number is unknown"]),
        (
            "num_prompts",
            [
                "completed: the expected number of requests is unknown",
                "tokens: 1024 output tokens; the expected number is unknown",
                "tokens: 2048 input tokens; the expected number is unknown",
            ],
        ),
    ],
)
def test_what_was_asked_of_an_unknown_load_is_unproven(
    make_seen: MakeSeen, unknown: str, findings: list[str]
) -> None:
    asked: dict[str, Any] = {unknown: UNKNOWN}
    found = check_sanity(make_seen(workload=replace(WORKLOAD, **asked)))
    assert [f"{finding.check}: {finding.message}" for finding in found] == findings
    assert {finding.severity for finding in found} == {"unproven"}


def test_a_request_that_failed_is_seen_also_where_the_number_asked_is_unknown(
    make_seen: MakeSeen,
) -> None:
    seen = make_seen({"completed": 3, "failed": 1}, workload=replace(SHAREGPT, num_prompts=UNKNOWN))
    assert said(seen)[:2] == [
        ("completed", "unproven", "the expected number of requests is unknown"),
        ("completed", "invalid", "3 of 4 requests completed, 1 failed"),
    ]


def test_a_dead_servers_result_is_invalid(make_seen: MakeSeen) -> None:
    path = Path(__file__).with_name("data") / "bench" / "vllm-0.32.0-dead-server.json"
    seen = replace(
        make_seen(),
        workload=Workload(input_len=64, output_len=9, num_prompts=2),
        result=load_bench_result(path),
    )
    assert [f"{f.check}: {f.message}" for f in check_sanity(seen)] == [
        "completed: none of 2 requests completed, 2 failed; first error: aiohttp.client_exceptions."
        "ClientConnectorError: Cannot connect to host 127.0.0.1:21000"
    ]
    assert METRICS.measure(seen).keys() <= set(METRICS.counts)


@pytest.mark.parametrize(
    ("role", "counts", "finding"),
    [
        (
            "decode",
            {"restarted": True},
            ("restarted", "invalid", "decode[0] restarted during the run"),
        ),
        (
            "decode",
            {"restarted": None},
            ("restarted", "unproven", "decode[0] has no metric of its process's start time"),
        ),
        (
            "decode",
            {"requests": 0.0},
            ("served", "note", "decode[0] served none of 4 requests; uniform routing does that in"),
        ),
        (
            "prefill",
            {"requests": 0.0},
            ("served", "invalid", "no prefill instance served any request (prefill[0])"),
        ),
        (
            "decode",
            {"kv_transfers": 3.0},
            ("transfers", "invalid", "5 KV transfers for 4 requests, expected one each"),
        ),
        ("decode", {"kv_failed": 2.0}, ("transfers", "invalid", "2 KV transfers failed")),
        ("prefill", {"kv_expired": 1.0}, ("transfers", "invalid", "1 KV caches expired")),
        (
            "decode",
            {"kv_bytes": BYTES / 2 - 128},
            (
                "bytes",
                "invalid",
                "2047872 bytes of KV cache moved, predicted 2048000 (1000 bytes a token, "
                "blocks of 128)",
            ),
        ),
        (
            "decode",
            {"block_size": 64},
            (
                "bytes",
                "unproven",
                "2048000 bytes moved; block size or prompt lengths are unknown",
            ),
        ),
        (
            "prefill",
            {"prefix_cache_hits": 1152.0},
            (
                "prefix_cache",
                "invalid",
                "1152 prompt tokens (56.2%) came from the prefix cache, at most 1024 by chance: "
                "they were sent before; use fresh servers or another seed",
            ),
        ),
        (
            "prefill",
            {"prefix_cache_hits": None},
            (
                "prefix_cache",
                "unproven",
                "prefill[0] shows no vllm:prefix_cache_hits_total: perhaps started with",
            ),
        ),
    ],
    ids=[
        *(
            "restarted",
            "start unknown",
            "idle by chance",
            "idle role",
            "a transfer too many",
            "failed",
            "expired",
        ),
        *("bytes short", "block sizes differ", "cache hits", "hits not counted"),
    ],
)
def test_what_instances_counted(
    make_seen: MakeSeen, role: str, counts: dict[str, Any], finding: tuple[str, str, str]
) -> None:
    ((check, severity, message),) = said(make_seen(**{role: counts}))
    assert (check, severity) == finding[:2]
    assert message.startswith(finding[2])


def test_an_instance_that_bad_luck_cannot_explain_is_invalid(make_seen: MakeSeen) -> None:
    """Of two instances, even dealing leaves one idle in 2 x 0.5 ** prompts of runs."""
    idle = {"requests": 0.0}
    by_chance = [f for f in check_sanity(make_seen(decode=idle)) if f.check == "served"]
    assert [f.severity for f in by_chance] == ["note"]
    assert by_chance[0].message.endswith("uniform routing does that in 0.12 of runs")
    many = replace(WORKLOAD, num_prompts=64)
    never = [f for f in check_sanity(make_seen(decode=idle, workload=many)) if f.check == "served"]
    assert [f.severity for f in never] == ["invalid"]
    assert "served none of 64 requests; uniform routing does that once in" in never[0].message


def test_instances_that_cannot_be_asked_prove_nothing(make_seen: MakeSeen) -> None:
    (finding,) = check_sanity(make_seen(served=()))
    assert (finding.check, finding.severity) == ("served", "unproven")
    assert finding.voids == ("kv_transfers", "kv_failed_transfers", "kv_bytes_per_request")
    assert finding.message == (
        "the counters of 1p2d's instances cannot be read here, so neither the path nor KV "
        "transfers are proven"
    )


def test_an_instance_without_counters_is_invalid(make_seen: MakeSeen) -> None:
    assert said(make_seen(instances=4)) == [
        ("served", "invalid", "3 of 4 instances showed counters")
    ]


def test_decode_without_nixl_counters_moved_nothing(
    make_seen: MakeSeen, make_counts: Callable[..., ServedCounts]
) -> None:
    served = (make_counts("prefill[0]"), make_counts("decode[0]", prompt_tokens_computed=0.0))
    off = "decode[0] shows no NIXL counters: the KV connector is off or is not NixlConnector"
    assert said(make_seen(served=served, instances=2)) == [
        ("transfers", "invalid", f"{off}, so no KV cache was moved")
    ]


@pytest.mark.parametrize(
    ("version", "why"),
    [
        ("0.11.0", "vLLM 0.11.0 does not count it, 0.12 and later do"),
        (None, "the vLLM version is unknown (counted since 0.12), or the KV connector is"),
        ("0.1.dev7+gabc", "the vLLM version is unknown (counted since 0.12), or the KV connector "),
    ],
)
def test_a_vllm_without_nixl_counters_proves_nothing(
    version: str | None, why: str, make_seen: MakeSeen, make_counts: Callable[..., ServedCounts]
) -> None:
    served = (make_counts("prefill[0]"), make_counts("decode[0]"))
    ((check, severity, message),) = said(
        make_seen(served=served, instances=2, vllm_version=version)
    )
    assert (check, severity) == ("transfers", "unproven")
    assert message.startswith(f"decode[0] shows no NIXL counters: {why}")


def test_a_vllm_that_does_not_count_failures_proves_none(
    make_seen: MakeSeen, make_counts: Callable[..., ServedCounts]
) -> None:
    decode = make_counts("decode[0]", kv_transfers=4.0, kv_bytes=float(BYTES), kv_failed=0.0)
    served = (make_counts("prefill[0]"), decode)
    assert said(make_seen(served=served, instances=2, vllm_version="0.13.0")) == [
        (
            "transfers",
            "unproven",
            "no instance shows vllm:nixl_num_kv_expired_reqs_total: vLLM 0.13.0 does not count it, "
            "0.15 and later do",
        ),
    ]


@pytest.mark.parametrize(
    ("changes", "severities"),
    [
        ({"kv_shape": None}, ["unproven"]),
        ({"kv_shape": KvShape(bytes_per_token=999)}, ["invalid"]),
        ({"result": {"input_lens": ()}}, ["unproven"]),
        ({"result": {"input_lens": (385, 512, 512, 500)}}, []),
        ({"result": {"input_lens": (384, 512, 512, 512)}}, ["invalid"]),
    ],
    ids=["no shape", "another shape", "no lengths", "whole blocks", "a block less"],
)
def test_bytes_are_predicted_from_shape_blocks_and_lengths(
    make_seen: MakeSeen, changes: dict[str, Any], severities: list[str]
) -> None:
    findings = check_sanity(make_seen(**changes))
    assert [f.severity for f in findings] == severities
    assert {f.check for f in findings} <= {"bytes"}


def test_what_a_decode_instance_has_already_is_not_moved_again(make_seen: MakeSeen) -> None:
    there = {
        "prefix_cache_hits": 496.0,
        "kv_bytes": BYTES / 2 - 496 * 1000,
        "prompt_tokens_received": 1024.0 - 496,
    }
    assert checked(make_seen(decode=there), "bytes") == []
    assert METRICS["kv_bytes_per_request"].value(make_seen(decode=there)) == BYTES / 4
    short = {**there, "kv_bytes": BYTES / 2 - 512 * 1000}
    ((severity, message),) = checked(make_seen(decode=short), "bytes")
    assert severity == "invalid"
    assert message.endswith("blocks of 128, 496 tokens were there already)")


@pytest.mark.parametrize(
    ("learned", "lens", "severity", "said_"),
    [
        ({512: BYTES / 4}, (512,) * 4, None, ""),
        ({500: BYTES / 4}, (512,) * 4, None, ""),  # as many blocks
        ({512: BYTES / 4 - 128}, (512,) * 4, "invalid", "from what one probe prompt moved"),
        ({256: BYTES / 8}, (512,) * 4, "unproven", "no prompt of that length was probed"),
        (
            {},
            (512,) * 4,
            "unproven",
            "the shape of the KV cache cannot be read from config.json, and no ",
        ),
        ({512: BYTES / 4}, (512, 512, 512, 200), "unproven", "not every prompt length was probed"),
        ({512: BYTES / 4}, (), "unproven", "block size or prompt lengths are unknown"),
    ],
)
def test_bytes_of_a_shape_that_is_not_known_are_learned(
    learned: dict[int, float],
    lens: tuple[int, ...],
    severity: str | None,
    said_: str,
    make_seen: MakeSeen,
) -> None:
    seen = make_seen(kv_shape=None, kv_probed=learned, result={"input_lens": lens})
    findings = checked(seen, "bytes")
    assert [found for found, _ in findings] == ([severity] if severity else [])
    assert not findings or said_ in findings[0][1]


def test_learned_bytes_do_not_tell_what_was_there_already(make_seen: MakeSeen) -> None:
    there = {"prefix_cache_hits": 496.0, "kv_bytes": BYTES / 2 - 99}
    seen = make_seen(kv_shape=None, kv_probed={512: BYTES / 4}, decode=there)
    assert [severity for severity, _ in checked(seen, "bytes")] == ["unproven"]


@pytest.mark.parametrize(
    "workload",
    [
        SHAREGPT,
        replace(WORKLOAD, input_len=448, options={"random-prefix-len": "64"}),
    ],
    ids=["another dataset", "a shared prefix"],
)
def test_cache_hits_are_expected_where_prompts_share_a_beginning(
    make_seen: MakeSeen, workload: Workload
) -> None:
    findings = said(make_seen(prefill={"prefix_cache_hits": 2048.0}, workload=workload))
    assert [check for check, _, _ in findings] == ["tokens"] * (workload is SHAREGPT)


def test_prompts_that_are_alike_by_chance_are_no_fault(make_seen: MakeSeen) -> None:
    assert said(make_seen(prefill={"prefix_cache_hits": 1024.0}, vocabulary=1000)) == []
    unknown = said(make_seen(prefill={"prefix_cache_hits": 1024.0}))
    assert [(check, severity) for check, severity, _ in unknown] == [("prefix_cache", "unproven")]
    large = make_seen(prefill={"prefix_cache_hits": 1024.0}, vocabulary=1_000_000)
    assert [check for check, _, _ in said(large)] == ["prefix_cache"]
    after_many = replace(large, earlier_requests=10_000.0)
    assert said(after_many) == []


def test_no_prompt_hits_by_chance_where_the_number_of_requests_is_unknown(
    make_seen: MakeSeen,
) -> None:
    run = make_seen(
        {"completed": None, "failed": None},
        workload=replace(WORKLOAD, num_prompts=UNKNOWN),
        earlier_requests=4.0,
    )
    assert (run.num_requests, chance_hits(run, 1000)) == (0, 0.0)


@pytest.mark.parametrize("prompts", [64, 1024])
def test_chance_is_as_rare_as_it_is_said(prompts: int, make_seen: MakeSeen) -> None:
    """Against prompts drawn as the client draws them: each counts up from a random token."""
    source, vocabulary, length = random.Random(7), 32_000, 512
    seen = make_seen(
        workload=replace(WORKLOAD, num_prompts=prompts),
        result={"input_lens": (length,) * prompts},
        vocabulary=vocabulary,
    )
    drawn = []
    for _ in range(300):
        starts = [(source.randrange(vocabulary) + n) % vocabulary for n in range(prompts)]
        drawn.append((prompts - len(set(starts))) * length)
    admitted = chance_hits(seen, vocabulary)
    assert max(drawn) <= admitted
    assert admitted <= 40 * max(length, statistics.mean(drawn))


def test_decode_instances_hit_what_was_moved_to_them(make_seen: MakeSeen) -> None:
    assert said(make_seen(decode={"prefix_cache_hits": 512.0})) == []


def test_a_busy_client_that_was_in_time_is_no_fault(make_seen: MakeSeen) -> None:
    assert said(make_seen(client_cpu=0.99)) == []
    assert said(make_seen(client_cpu=None)) == []


@pytest.mark.parametrize(
    ("cpu", "message"),
    [
        (0.9, None),
        (0.95, "how late the client sent its requests is unknown; it used 95% of a core"),
        (None, "how late the client sent its requests is unknown"),
    ],
)
def test_a_client_of_which_nobody_knows_how_late_it_was(
    make_seen: MakeSeen, cpu: float | None, message: str | None
) -> None:
    seen = make_seen(client_cpu=cpu, result={"start_s": ()})
    assert said(seen) == ([("client", "unproven", message)] if message else [])


@pytest.mark.parametrize(
    ("starts", "concurrency", "late_ms"),
    [
        ((1.0, 1.0, 1.0, 1.0), None, None),
        ((1.0, 1.04, 1.08, 1.12), None, (60, 120)),
        ((1.0, 1.0, 3.65, 3.65), 2, None),  # the first two end after 2.65 s
        ((1.0, 1.0, 3.85, 3.85), 2, (100, 200)),
        ((1.0, 1.05, 1.05, 1.05), None, None),  # 38 ms is little
    ],
    ids=["in time", "late at once", "one after the other", "late to follow", "a little"],
)
def test_a_late_client_is_told_by_how_much(
    make_seen: MakeSeen,
    starts: tuple[float, ...],
    concurrency: int | None,
    late_ms: tuple[int, int] | None,
) -> None:
    load = replace(WORKLOAD, max_concurrency=concurrency)
    findings = said(make_seen(workload=load, result={"start_s": starts}))
    if late_ms is None:
        assert findings == []
        return
    mean, most = late_ms
    assert findings == [
        (
            "client",
            "invalid",
            f"the client sent its requests {mean} ms late on average (the latest {most} ms), "
            f"{mean}% of the mean TTFT, limit 10%; it used 50% of a core; lower max_concurrency",
        )
    ]


@pytest.mark.parametrize("count", [16, 100, 1024])
@pytest.mark.parametrize("share", [0.194, 0.94, 0.96, 1.0])
def test_a_rate_that_was_not_offered_voids_every_latency(
    share: float, count: int, make_seen: MakeSeen
) -> None:
    load = replace(WORKLOAD, request_rate=10.0, num_prompts=count)
    # As the client scales its gaps: n requests take n / rate seconds, the first starts at once.
    starts = tuple(n * count / (count - 1) / (10.0 * share) for n in range(count))
    seen = make_seen(workload=load, result={"start_s": starts})
    findings = list(check_offered(seen))
    assert len(findings) == (share < 0.95)
    for found in findings:
        late = "client_queue"  # these count the wait
        assert set(found.voids) == {n for n in METRICS if n.endswith("_ms") and late not in n}
        rate = f"{10 * share * (count - 1) / count:.3g}"
        assert found.message.startswith(
            f"{rate} requests/s were sent, 10 requested (at least 95%); "
        )


OPEN_LOOP = replace(WORKLOAD, request_rate=2.0)


def test_a_wait_before_requests_are_sent_is_told(make_seen: MakeSeen) -> None:
    starts, waits = (0.0, 0.5, 1.0, 1.5), (0.0, 0.1, 0.1, 0.2)
    timely = make_seen(workload=OPEN_LOOP, result={"start_s": starts, "queue_s": waits})
    (found,) = check_offered(timely)
    assert (found.severity, found.voids) == ("note", ())
    assert found.message.startswith(
        "the requested rate was sent; requests waited 100 ms on average before they were sent"
    )
    slow = tuple(3 * start for start in starts)
    (found,) = check_offered(
        make_seen(workload=OPEN_LOOP, result={"start_s": slow, "queue_s": waits})
    )
    assert "(at least 95%); requests waited 100 ms on average before they were sent" in (
        found.message
    )
    short = {"start_s": starts, "queue_s": (0.0, 0.04, 0.04, 0.05)}
    assert list(check_offered(make_seen(workload=OPEN_LOOP, result=short))) == []
    long_ttft = {"start_s": starts, "queue_s": waits, "raw": {**TIMES, "mean_ttft_ms": 2000.0}}
    assert list(check_offered(make_seen(workload=OPEN_LOOP, result=long_ttft))) == []


@pytest.mark.parametrize(
    ("stall_s", "message"),
    [
        (None, None),
        (2.9, None),
        (3.0, "decode[0] had requests and made no token for 3 s"),
        (20.4, "decode[0] had requests and made no token for 20 s"),
    ],
)
def test_an_engine_that_stood_still_is_named(
    stall_s: float | None, message: str | None, make_seen: MakeSeen
) -> None:
    findings = said(make_seen(decode={"stall_s": stall_s}))
    assert findings == ([("stalls", "note", message)] if message else [])


def test_what_the_router_tried_again_is_told(make_seen: MakeSeen) -> None:
    counted = {"vllm_router_pd_requests_total": 4.0, "vllm_router_retries_total": 2.0}
    seen = make_seen(router={**counted, "vllm_router_pd_errors_total": 1.0})
    message = "the router counted vllm_router_pd_errors_total 1, vllm_router_retries_total 2"
    assert said(seen) == [("router", "note", message)]
    assert said(make_seen(router={"vllm_router_pd_requests_total": 4.0})) == []


ALONE = NodeLoad(cores=16, load_1m=3.2, steal=0.01, busy_cores=3.0, other_cores=0.7)


@pytest.mark.parametrize(
    ("load", "message"),
    [
        (None, None),
        (ALONE, None),
        (replace(ALONE, other_cores=None), None),
        (replace(ALONE, cores=2, other_cores=0.15), None),
        (
            replace(ALONE, cores=2, other_cores=0.25),
            "other processes used 0.2 of 2 cores (load average 3.2)",
        ),
        (
            replace(ALONE, other_cores=1.0, other_processes=("make[7] 0.90", "sh[8] 0.10")),
            "other processes used 1.0 of 16 cores: make[7] 0.90, sh[8] 0.10 (load average 3.2)",
        ),
        (
            replace(ALONE, steal=0.12),
            "12% of its CPU time went to other machines (steal) (load average 3.2)",
        ),
    ],
)
def test_a_busy_client_node_is_named(
    load: NodeLoad | None, message: str | None, make_seen: MakeSeen
) -> None:
    findings = said(make_seen(client_node=load))
    text = f"the client's node was busy: {message}"
    assert findings == ([("client_node", "note", text)] if message else [])


def test_a_rate_of_which_nobody_knows_what_was_offered(make_seen: MakeSeen) -> None:
    load = replace(WORKLOAD, request_rate=10.0)
    (found,) = check_offered(make_seen(workload=load, result={"start_s": ()}))
    assert (found.check, found.severity) == ("offered", "unproven")


def checked(seen: Observation, *checks: str) -> list[tuple[str, str]]:
    """Severity and message of what some checks say."""
    return [(f.severity, f.message) for f in check_sanity(seen) if f.check in checks]


@pytest.mark.parametrize(
    ("role", "counts", "message"),
    [
        (
            "prefill",
            {"requests": 14.0},
            "prefill instances counted 14 requests, 4 were sent: another client sent 10",
        ),
        ("decode", {"requests": 3.0}, "decode instances counted 5 requests, 4 were sent: another "),
        (
            "prefill",
            {"prompt_tokens": 2048.0 + 33},
            "prefill instances read 2081 prompt tokens, 2048 were sent: another client cancelled",
        ),
        ("decode", {"prompt_tokens": 1024.0 + 512}, "decode instances read 2560 prompt tokens, "),
        ("prefill", {"prompt_tokens": 2048.0 + 4}, None),  # a token that begins each prompt
        ("prefill", {"prompt_tokens": None}, None),
        ("prefill", {"requests": 3.0}, None),
    ],
)
def test_requests_of_others_are_counted(
    role: str, counts: dict[str, Any], message: str | None, make_seen: MakeSeen
) -> None:
    findings = checked(make_seen(**{role: counts}), "foreign_requests")
    if message is None:
        assert findings == []
        return
    ((severity, said_),) = findings
    assert severity == "invalid"
    assert said_.startswith(message)


def test_one_request_more_may_be_an_old_clients_own(make_seen: MakeSeen) -> None:
    one_more = {"requests": 5.0, "prompt_tokens": 2560.0}
    ((severity, message),) = checked(
        make_seen(prefill=one_more, vllm_version=None), "foreign_requests"
    )
    assert severity == "unproven"
    assert "readiness request of a vLLM client before 0.14" in message
    assert checked(make_seen(prefill=one_more), "foreign_requests")[0][0] == "invalid"
    moved = {"kv_transfers": 3.0, "kv_bytes": BYTES / 4 * 3}
    seen = make_seen(prefill=one_more, decode=moved, vllm_version=None)
    assert checked(seen, "transfers", "bytes") == []
    alone = make_seen(decode=moved, vllm_version=None)  # nobody else counted one more
    assert [severity for severity, _ in checked(alone, "transfers", "bytes")] == ["invalid"] * 2


def test_a_template_or_somebody_else_read_more_of_a_chat(make_seen: MakeSeen) -> None:
    seen = make_seen(CHAT, prefill={"prompt_tokens": 2048.0 + 512})
    assert checked(seen, "foreign_requests") == [
        (
            "unproven",
            "prefill instances read 2560 prompt tokens, 2048 were sent: a chat template, or "
            "another client",
        )
    ]


def test_what_the_router_sent_again_came_from_nobody_else(make_seen: MakeSeen) -> None:
    again = {"requests": 6.0, "prompt_tokens": 3072.0}
    router = {"vllm_router_retries_total": 2.0}
    assert checked(make_seen(prefill=again, router=router), "foreign_requests") == []


def test_requests_of_others_are_seen_on_aggregated_instances(
    make_seen: MakeSeen, make_counts: Callable[..., ServedCounts]
) -> None:
    served = (make_counts("aggregated[0]", requests=26.0),)
    load = replace(WORKLOAD, num_prompts=16)
    seen = make_seen(served=served, instances=1, topology=Topology.parse("dp"), workload=load)
    assert checked(seen, "foreign_requests") == [
        (
            "invalid",
            "aggregated instances counted 26 requests, 16 were sent: another client sent 10",
        )
    ]


def test_warm_ups_of_the_client_are_counted(make_seen: MakeSeen) -> None:
    half = {
        "requests": 3.0,
        "prompt_tokens": 1536.0,
        "kv_transfers": 3.0,
        "kv_bytes": BYTES * 3 / 4,
    }
    prefill = {"requests": 6.0, "prompt_tokens": 3072.0, "prefix_cache_hits": 1024.0}
    seen = make_seen(prefill=prefill, extra_expected=2, vocabulary=100_000)
    more: dict[str, Any] = half
    seen = replace(seen, served=(seen.served[0], *(replace(c, **more) for c in seen.served[1:])))
    assert said(seen) == []
    found = said(replace(seen, extra_expected=0))
    assert {check for check, _, _ in found} == {
        "foreign_requests",
        "transfers",
        "bytes",
        "prefix_cache",
    }


@pytest.mark.parametrize(
    ("role", "counts", "severity", "message"),
    [
        ("prefill", 2.0, "note", "prefill[0] preempted 2 times (50% of requests)"),
        (
            "decode",
            1.0,
            "invalid",
            "decode[0] preempted 1 times (50% of requests); each prefills again on a decode "
            "instance, limit 10%; its KV cache is too small",
        ),
        ("decode", 0.0, None, None),
        ("decode", None, None, None),
    ],
)
def test_preemptions_are_named_by_instance(
    role: str, counts: float | None, severity: str | None, message: str, make_seen: MakeSeen
) -> None:
    findings = checked(make_seen(**{role: {"preemptions": counts}}), "preemptions")
    assert findings == ([(severity, message)] if severity else [])


def test_how_many_preemptions_are_admitted_is_the_systems(make_seen: MakeSeen) -> None:
    seen = make_seen(decode={"preemptions": 1.0}, sanity=Sanity(max_preemptions_per_request=0.5))
    assert [severity for severity, _ in checked(seen, "preemptions")] == ["note"]


@pytest.mark.parametrize(
    ("own", "message"),
    [
        (0.0, None),
        (4.0, None),  # the last token of each prompt
        (20.0, None),
        (
            1024.0,
            "decode instances prefilled 1020 of 2048 prompt tokens again (49.8%, limit 1.0%): "
            "prefill and decode were not separated",
        ),
        (26.0, "decode instances prefilled 22 of 2048 prompt tokens again (1.1%, limit 1.0%): "),
    ],
)
def test_a_decode_instance_that_prefills_again_is_named(
    own: float, message: str | None, make_seen: MakeSeen
) -> None:
    findings = checked(make_seen(decode={"prompt_tokens_computed": own}), "prefilled_again")
    assert [severity for severity, _ in findings] == ["invalid"] * (message is not None)
    assert not message or findings[0][1].startswith(message)


def test_an_old_vllm_does_not_say_who_prefilled(make_seen: MakeSeen) -> None:
    silent = {"decode": {"prompt_tokens_computed": None}}
    assert checked(make_seen(**silent, vllm_version="0.15.1"), "prefilled_again") == []
    assert checked(make_seen(**silent, vllm_version="0.25.0"), "prefilled_again") == [
        (
            "unproven",
            "decode[0] shows no vllm:prompt_tokens_by_source_total: perhaps started with "
            "--disable-log-stats",
        )
    ]


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        (
            {"kv_read_late": 2.0},
            "2 KV caches were read after they had expired: answers may be wrong",
        ),
        ({"kv_expired": 1.0}, "1 KV caches expired before they were read"),
        ({"ended_abnormally": 3.0}, "prefill[0] ended 3 requests with abort, error or repetition"),
    ],
)
def test_what_may_make_answers_wrong_is_invalid(
    counts: dict[str, float], message: str, make_seen: MakeSeen
) -> None:
    findings = checked(make_seen(prefill=counts), "transfers", "served")
    assert findings == [("invalid", message)]


def test_without_any_counter_nothing_says_that_the_connector_is_off(
    make_seen: MakeSeen, make_counts: Callable[..., ServedCounts]
) -> None:
    nothing = dict.fromkeys(BY_NAME)
    served = tuple(make_counts(each, **nothing) for each in ("prefill[0]", "decode[0]"))
    findings = check_sanity(make_seen(served=served, instances=2))
    assert {found.severity for found in findings} == {"unproven"}
    assert {m.rpartition(": ")[2] for m in (found.message for found in findings)} == {
        "perhaps started with --disable-log-stats"
    }


@pytest.mark.parametrize("name", ["requests", "prompt_tokens", "generation_tokens"])
def test_a_counter_that_is_absent_is_not_zero(name: str, make_seen: MakeSeen) -> None:
    findings = check_sanity(make_seen(prefill={name: None}))
    assert [f.severity for f in findings] == ["unproven"] * (name == "requests")
    for found in findings:
        assert found.message == (
            "prefill[0] shows no vllm:request_success_total: perhaps started with "
            "--disable-log-stats"
        )


SAME = {"answer_digests": ("a",) * 4}


@pytest.mark.parametrize(
    ("result", "controls", "finding"),
    [
        ({"answer_digests": ("a", "b", "c", "d")}, None, None),
        ({"answer_digests": ("a", "a", "a", "b")}, ("x", "y"), None),
        ({"answer_digests": ()}, None, None),
        ({**SAME, "total_output_tokens": 28}, ("x", "y"), None),  # 7 tokens may well be alike
        (
            SAME,
            None,
            (
                "unproven",
                "all 4 answers are the same text; whether they should differ is unknown",
            ),
        ),
        (
            SAME,
            ("x", "x", "x"),
            (
                "unproven",
                "all 4 answers are the same text, as are those to 3 prompts sent one by one "
                "('x'): with these weights a wrong answer would not show",
            ),
        ),
        (
            SAME,
            ("x", "y", "x"),
            (
                "invalid",
                "all 4 answers are the same text, but 3 prompts sent one by one have 2 different "
                "ones: what was served under load is wrong",
            ),
        ),
    ],
)
def test_answers_that_are_all_alike(
    result: dict[str, Any],
    controls: tuple[str, ...] | None,
    finding: tuple[str, str] | None,
    make_seen: MakeSeen,
) -> None:
    seen = make_seen(result=result, controls=controls and ControlAnswers(answers=controls))
    assert checked(seen, "answers") == ([finding] if finding else [])


def test_tokens_without_text_are_no_answer(make_seen: MakeSeen) -> None:
    seen = make_seen(result={"answer_digests": ("a", "", "b", "")})
    assert checked(seen, "completed") == [
        ("invalid", "2 of 4 requests claim 512 tokens and have no text")
    ]
    special = {
        "answer_digests": ("a",) * 19 + ("",),
        "output_lens": (256,) * 20,
        "errors": ("",) * 20,
        "itl_s": (),
    }
    few = make_seen(result=special, workload=replace(WORKLOAD, num_prompts=20))
    assert checked(few, "completed")[0] == (
        "note",
        "1 of 20 requests claim 256 tokens and have no text",
    )
    refused = {"answer_digests": ("a", "", "b", "c"), "errors": ("", "refused", "", "")}
    assert checked(make_seen(result=refused), "completed") == []


CHAT = {"raw": {"endpoint_type": "openai-chat", **TIMES}}


@pytest.mark.parametrize(
    ("result", "options", "finding"),
    [
        (
            {**CHAT, "input_lens": (525,) * 4, "total_input_tokens": 2100},
            {},
            ("note", "the server counts 13 more tokens per prompt: its chat template"),
        ),
        (
            {**CHAT, "input_lens": (525, 525, 525, 512), "total_input_tokens": 2087},
            {},
            ("invalid", "2087 input tokens, expected 2048"),
        ),
        (
            {**CHAT, "input_lens": (500,) * 4, "total_input_tokens": 2000},
            {},
            ("invalid", "2000 input tokens, expected 2048"),
        ),
        (
            {"input_lens": (525,) * 4, "total_input_tokens": 2100},
            {},
            ("invalid", "2100 input tokens, expected 2048"),
        ),
        (
            {"input_lens": (256, 768, 400, 512), "total_input_tokens": 1936},
            {"random-range-ratio": "0.5"},
            None,
        ),
        (
            {"input_lens": (200, 768, 400, 512), "total_input_tokens": 1880},
            {"random-range-ratio": "0.5"},
            ("invalid", "input has 200 tokens, expected 256 to 768"),
        ),
        (
            {"output_lens": (256, 256, 256, 500), "total_output_tokens": 1268},
            {"random-range-ratio": "0.5"},
            ("invalid", "output has 500 tokens, expected 128 to 384"),
        ),
        (
            {**CHAT, "input_lens": (900,) * 4, "total_input_tokens": 3600},
            {"random-range-ratio": "0.5"},
            ("unproven", "input lengths vary; the expected range is unknown"),
        ),
        (
            {},
            {"random-range-ratio": "{}"},
            ("unproven", "output lengths vary; the expected range is unknown"),
        ),
        (
            {"input_lens": (576,) * 4, "total_input_tokens": 2304},
            {"random-prefix-len": "64"},
            None,
        ),
        ({}, {"random-prefix-len": "64"}, ("invalid", "2048 input tokens, expected 2304")),
    ],
)
def test_options_that_change_lengths_are_counted(
    result: dict[str, Any],
    options: dict[str, str],
    finding: tuple[str, str] | None,
    make_seen: MakeSeen,
) -> None:
    findings = checked(make_seen(result=result, options=options), "tokens")
    assert findings[:1] == ([finding] if finding else [])


def test_aggregated_instances_move_no_cache(
    make_seen: MakeSeen, make_counts: Callable[..., ServedCounts]
) -> None:
    half = {"requests": 2.0, "prompt_tokens": 1024.0, "generation_tokens": 512.0}
    served = (make_counts("aggregated[0]", **half), make_counts("aggregated[1]", **half))
    seen = make_seen(served=served, instances=2, topology=Topology.parse("route2"))
    assert said(seen) == []


def test_every_check_has_its_place() -> None:
    assert [check.__name__.removeprefix("check_") for check in checks()] == [
        *("completed", "answers", "answers_under_load", "tokens", "figures", "zeros", "chunks"),
        *("served", "foreign_requests"),
        *("preemptions", "transfers", "transfer_speed", "prefilled_again", "bytes", "prefix_cache"),
        *("router", "stalls"),
        *("client", "client_lateness", "client_offset", "offered", "client_node"),
        *("gpus", "fabric"),
    ]


@pytest.mark.parametrize(
    ("count", "expected", "ranks", "admitted"),
    [
        (4, 4, 1, True),
        (8, 4, 1, False),
        (32, 4, 8, True),
        (4, 4, 8, True),
        (31, 4, 8, False),
        (36, 4, 8, False),
        (0, 4, 8, False),
        (0, 0, 8, False),
    ],
)
def test_ranks_may_count_each_for_themselves(
    count: float, expected: float, ranks: int, *, admitted: bool
) -> None:
    assert counted_per_rank(count, expected, ranks) is admitted


def test_a_transfer_that_one_rank_lost_is_invalid(make_seen: MakeSeen) -> None:
    per_rank = {"kv_transfers": 15.0, "kv_bytes": BYTES}
    seen = make_seen(decode=per_rank, ranks=8)
    assert (
        "transfers",
        "invalid",
        "17 KV transfers for 4 requests, expected 1 to 8 each, one per rank",
    ) in said(seen)
