"""Checks of the client's results: answers, tokens, chunks, and when requests were sent."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence

from pytest_pdserve.judge.findings import invalid
from pytest_pdserve.judge.findings import note
from pytest_pdserve.judge.findings import unproven
from pytest_pdserve.judge.lateness import lateness_s
from pytest_pdserve.judge.lateness import offered_rate
from pytest_pdserve.values.metrics import METRICS
from pytest_pdserve.values.numbers import finite
from pytest_pdserve.values.observation import Observation
from pytest_pdserve.values.record import Finding
from pytest_pdserve.values.workload import UNKNOWN

MAX_SILENT_SHARE = 0.1
"""Share of requests above which tokens without text make the run invalid."""
MIN_COMPARED_TOKENS = 8
"""Output tokens per request below which different prompts often have the same answer."""
MIN_TEXT_SHARE = 0.7
"""Least share of the tokens in a server's usage that it must count in the text that it sent: a
tokenizer counts 0.94 to 1.38 (Mistral's, 3,000 texts of 16 random tokens), and 0.06 to 0.5 for one
repeated character."""
MIN_CHUNKS_PER_TOKEN = 0.98
"""Chunks per token below which a gap between chunks is not an inter-token latency."""
MAX_CLIENT_CPU = 0.9
"""Share of a core above which the run is unproven if the client's lateness is unknown."""
MAX_LATE_SHARE = 0.1
"""Share of the mean TTFT by which requests may be sent late, on average."""
MIN_LATE_S = 0.05
"""Mean lateness below this never makes a run invalid, even with a short TTFT."""
MIN_OFFERED_SHARE = 0.95
"""Least share of the requested rate that must be sent."""
MAX_STEAL = 0.02
"""Share of a node's CPU time taken by the hypervisor (steal) above which there is a note."""
MAX_OTHER_SHARE = 0.05
"""Share of the client's node used by other processes above which there is a note."""
MIN_OTHER_CORES = 0.2
"""Cores that other processes may use without a note."""


def check_completed(run: Observation) -> Iterator[Finding]:
    """Check that every request completed: if all fail, vLLM reports a TTFT of 0 ms."""
    prompts, result = run.workload.num_prompts, run.result
    fault = run.controls.fault if run.controls else ""
    if result.completed is None:
        yield unproven("completed", "the client's result has no number of completed requests")
        if result.failed:
            yield invalid("completed", f"{result.failed} requests failed")
        return
    if isinstance(prompts, str):
        yield unproven("completed", "the expected number of requests is unknown")
        prompts = result.completed + (result.failed or 0)
    if result.failed is None:
        yield unproven("completed", "the client's result has no number of failed requests")
    silent = [
        tokens
        for answer, tokens, error in zip(
            result.answer_digests, result.output_lens, result.errors, strict=False
        )
        if tokens > 0 and not answer and not error
    ]
    if silent:
        message = f"{len(silent)} of {prompts} requests claim {sum(silent)} tokens and have no text"
        many = len(silent) > MAX_SILENT_SHARE * prompts
        # A few answers may consist of special tokens, which have no text.
        yield invalid("completed", message) if many else note("completed", message)
    if result.completed != prompts or result.failed:
        answered = f"{result.completed} of {prompts}" if result.completed else f"none of {prompts}"
        first = next((e.strip().splitlines()[-1] for e in result.errors if e.strip()), None)
        yield invalid(
            "completed",
            f"{answered} requests completed, {result.failed or 0} failed"
            + (f"; first error: {_printable(first[:200])}" if first else "")
            + (f"; a single prompt, sent alone: {fault}" if fault and not result.completed else ""),
        )


def _printable(text: str) -> str:
    """Return *text* with non-printable characters escaped."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def check_answers(run: Observation) -> Iterator[Finding]:
    """Check that different prompts had different answers, if the model gives different answers."""
    alone = run.controls.answers if run.controls else ()
    if run.controls and run.controls.fault:
        yield invalid("answers", f"a prompt sent alone after the run: {run.controls.fault}")
    tokens, completed = run.result.total_output_tokens or 0, run.result.completed or 0
    few = tokens < MIN_COMPARED_TOKENS * completed
    if (short := _short_text(run)) is not None:
        yield invalid("answers", short)
        return
    again = run.repeated.answers if run.repeated else ()
    if not run.result.answers_identical or few or len(again) > 1:
        return  # ``answers_under_load`` compares the same requests, sent again
    message = f"all {len(run.result.answer_digests)} answers are the same text"
    if not alone or run.workload.dataset != "random":
        yield unproven("answers", f"{message}; whether they should differ is unknown")
    elif len(set(alone)) == 1:
        yield unproven(
            "answers",
            f"{message}, as are those to {len(alone)} prompts sent one by one ({alone[0][:20]!r}): "
            "with these weights a wrong answer would not show",
        )
    else:
        yield invalid(
            "answers",
            f"{message}, but {len(alone)} prompts sent one by one have {len(set(alone))} "
            "different ones: what was served under load is wrong",
        )


def _short_text(run: Observation) -> str | None:
    """Return a fault if the server counts too few tokens in every text that it sent; else None."""
    controls = run.controls
    if controls is None or len(controls.recounted) < 2:
        return None
    if any(counted >= MIN_TEXT_SHARE * claimed for claimed, counted in controls.recounted):
        return None
    claimed, counted = (sum(numbers) for numbers in zip(*controls.recounted, strict=True))
    alike, first = len(set("".join(controls.answers))) == 1, controls.answers[0][:1]
    repeated = f"they consist of {first!r} alone, as with broken weights"
    cause = repeated if alike else "text is missing"
    return (
        f"{len(controls.recounted)} prompts sent one by one have {claimed} output tokens by the "
        f"server's usage, but it counts {counted} in their texts, sent back as prompts: {cause}"
    )


def check_tokens(run: Observation) -> Iterator[Finding]:
    """Check that outputs have the requested length, and inputs too if the client makes them."""
    workload, result = run.workload, run.result
    if result.completed and result.total_output_tokens == 0:
        yield invalid("tokens", f"{result.completed} requests completed and none generated a token")
        return
    if result.total_input_tokens is None and result.total_output_tokens is None:
        yield unproven("tokens", "the client's result has no token counts")
        return
    lengths = (workload.input_len, workload.output_len)
    unnamed = workload.dataset == UNKNOWN and any(isinstance(length, int) for length in lengths)
    if workload.dataset != "random" and not unnamed:
        yield unproven(
            "tokens",
            f"{_count(result.total_input_tokens)} input and {_count(result.total_output_tokens)} "
            f"output tokens; the lengths of data set {workload.dataset!r} are unknown",
        )
        return
    prefix = _number(run, "random-prefix-len", 0.0)
    counts = {
        "output": (result.total_output_tokens, result.output_lens, workload.output_len, 0.0),
        "input": (result.total_input_tokens, result.input_lens, workload.input_len, prefix),
    }
    requests = _expected_requests(run)
    for what, (got, lens, length, more) in counts.items():
        if not isinstance(length, int) or requests is None or more is None:
            yield unproven("tokens", f"{_count(got)} {what} tokens; the expected number is unknown")
        elif got is None:
            yield unproven("tokens", f"the number of {what} tokens is unknown")
        elif "random-range-ratio" in run.client_options:
            yield from _check_varied(run, what, lens, length)
        elif got != (total := requests * (length + int(more))):
            yield from _check_other(run, what, got, total, lens)


def _count(count: int | None) -> str:
    """Return a count for a message."""
    return "an unknown number of" if count is None else str(count)


def _expected_requests(run: Observation) -> int | None:
    """Return the number of requests that the totals are over; None if unknown.

    An imported file may give the lengths but not the number of requests. Then the completed
    requests show whether outputs ended early.
    """
    requests = run.workload.num_prompts
    if isinstance(requests, int):
        return requests
    return run.result.completed if run.workload.options == UNKNOWN else None


def _number(run: Observation, option: str, default: float) -> float | None:
    """Return the value of a numeric option of the client; None if it is not a number."""
    try:
        return float(run.client_options.get(option, default))
    except ValueError:
        return None


def _check_varied(
    run: Observation, what: str, lens: Sequence[int], length: int
) -> Iterator[Finding]:
    """Check that lengths that the client draws around *length* are within their range."""
    ratio = _number(run, "random-range-ratio", 0.0)
    prefix = _number(run, "random-prefix-len", 0.0) if what == "input" else 0.0
    templated = what == "input" and is_chat(run)
    if ratio is None or prefix is None or not lens or templated:
        yield unproven("tokens", f"{what} lengths vary; the expected range is unknown")
        return
    low, high = length * (1 - ratio) + prefix - 1, length * (1 + ratio) + prefix + 1
    outside = [tokens for tokens in lens if not low <= tokens <= high]
    if outside:
        yield invalid(
            "tokens",
            f"{what} has {outside[0]} tokens, expected {low + 1:.0f} to {high - 1:.0f}",
        )


def _check_other(
    run: Observation, what: str, got: int, total: int, lens: Sequence[int]
) -> Iterator[Finding]:
    """Judge a total that differs from the expected one.

    A chat template adds the same number of tokens to every prompt.
    """
    if what == "input" and is_chat(run) and got > total and len(set(lens)) == 1:
        added = (got - total) // max(1, len(lens))
        yield note("tokens", f"the server counts {added} more tokens per prompt: its chat template")
    elif what == "input" and run.foreign_tokenizer is not None:
        yield unproven(
            "tokens",
            f"{got} input tokens by the server's count, expected {total} by the tokenizer of "
            f"{run.foreign_tokenizer}; name the model's own in [bench] args (--tokenizer)",
        )
    elif run.workload.options == UNKNOWN:
        ended = what == "output" and got < total
        why = "outputs ended early, and whether --ignore-eos was given is unknown"
        yield unproven(
            "tokens",
            f"{got} {what} tokens, expected {total}: "
            + (why if ended else "the options that could explain it are unknown"),
        )
    else:
        yield invalid("tokens", f"{got} {what} tokens, expected {total}")


def is_chat(run: Observation) -> bool:
    """Return whether prompts were sent as chat messages, to which a template adds tokens."""
    raw = run.result.raw
    return any("chat" in str(raw.get(name, "")) for name in ("backend", "endpoint_type"))


def check_chunks(run: Observation) -> Iterator[Finding]:
    """Check that each chunk has one token: otherwise gaps between chunks are not ITL."""
    chunks, tokens = run.result.chunks, run.result.total_output_tokens
    if chunks is None:
        yield unproven(
            "chunks",
            "no entry per request (--save-detailed), so chunks cannot be compared with "
            "tokens; ITL is not judged",
            voids=METRICS.voided_by("chunks"),
        )
    elif tokens and chunks / tokens < MIN_CHUNKS_PER_TOKEN:
        yield note(
            "chunks",
            f"{chunks} chunks for {tokens} tokens ({chunks / tokens:.3f} per token, at "
            f"least {MIN_CHUNKS_PER_TOKEN}); ITL is not judged, TPOT is",
            voids=METRICS.voided_by("chunks"),
        )


def check_zeros(run: Observation) -> Iterator[Finding]:
    """Check that no latency or rate is zero."""
    for name, metric in METRICS.items():
        value = None if metric.zero else metric.value(run)
        if value is not None and value <= 0:
            yield invalid("zeros", f"{name} = {value:g}, expected above 0")


def check_client(run: Observation) -> Iterator[Finding]:
    """Check that the client sent its requests in time.

    A client that sends late also reads late. A busy client alone is not a fault; if its lateness
    is unknown, the run is unproven.
    """
    late = lateness_s(run.result, run.workload)
    cpu = "" if run.client_cpu is None else f"; it used {run.client_cpu:.0%} of a core"
    if not late:
        if finite(run.result.raw.get("client_mean_send_late_ms")) is not None:
            return  # the client reports its own lateness: ``client_lateness``
        if run.client_cpu is None or run.client_cpu > MAX_CLIENT_CPU:
            yield unproven("client", f"how late the client sent its requests is unknown{cpu}")
        return
    mean_s, ttfts = sum(late) / len(late), run.result.ttft_s
    share = mean_s * len(ttfts) / sum(ttfts) if sum(ttfts) > 0 else 0.0
    if mean_s > MIN_LATE_S and share > MAX_LATE_SHARE:
        yield invalid(
            "client",
            f"the client sent its requests {mean_s * 1000:.0f} ms late on average (the latest "
            f"{max(late) * 1000:.0f} ms), {share:.0%} of the mean TTFT, limit "
            f"{MAX_LATE_SHARE:.0%}{cpu}; lower max_concurrency",
        )


def check_offered(run: Observation) -> Iterator[Finding]:
    """Check that requests were sent at the requested rate; otherwise the load is another."""
    requested, sent = run.workload.request_rate, offered_rate(run.result)
    if not isinstance(requested, int | float):
        return
    if sent is None:
        yield unproven(
            "offered", f"requested {requested:g} requests/s; the rate of sending is unknown"
        )
        return
    wait_ms, waited = METRICS["mean_client_queue_time_ms"].value(run), ""
    if wait_ms is not None:
        waited = f"; requests waited {wait_ms:.0f} ms on average before they were sent"
    # The client scales its gaps so that n requests take n / rate seconds (vLLM 0.32,
    # ``get_request``); from the first to the last these are n - 1 gaps.
    count = len(run.result.start_s)
    if sent < requested * MIN_OFFERED_SHARE * (count - 1) / count:
        yield note(
            "offered",
            f"{sent:.3g} requests/s were sent, {requested:g} requested (at least "
            f"{MIN_OFFERED_SHARE:.0%}){waited}; latencies are not judged: max_concurrency or the "
            "client delayed requests",
            voids=METRICS.voided_by("offered"),
        )
    elif wait_ms is not None and _is_long(wait_ms, METRICS["mean_ttft_ms"].value(run)):
        yield note(
            "offered",
            f"the requested rate was sent{waited}, which TTFT and E2EL leave out; "
            "mean_ttft_including_client_queue_ms counts it",
        )


def _is_long(wait_ms: float, ttft_ms: float | None) -> bool:
    """Return whether a wait is long, both in seconds and relative to the mean TTFT."""
    return wait_ms > MIN_LATE_S * 1000 and wait_ms > MAX_LATE_SHARE * (ttft_ms or 0.0)


def check_client_node(run: Observation) -> Iterator[Finding]:
    """Check that no other machine or process used the CPUs of the client's node."""
    load = run.client_node
    if load is None:
        return
    causes = []
    if load.steal > MAX_STEAL:
        causes.append(f"{load.steal:.0%} of its CPU time went to other machines (steal)")
    if (load.other_cores or 0.0) > max(MIN_OTHER_CORES, MAX_OTHER_SHARE * load.cores):
        named = f": {', '.join(load.other_processes)}" if load.other_processes else ""
        causes.append(f"other processes used {load.other_cores:.1f} of {load.cores} cores{named}")
    if causes:
        yield note(
            "client_node",
            f"the client's node was busy: {'; '.join(causes)} (load average {load.load_1m:.1f})",
        )
