"""Checks of what the client saw: answers, tokens, chunks, and when requests were sent."""

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
"""Output tokens per request below which different prompts may well have the same answer."""
MIN_TEXT_SHARE = 0.7
"""Share of the tokens that a server claims which it must count in its own text: a tokenizer counts
0.94 to 1.38 (Mistral's, 3,000 texts of 16 random tokens), and 0.06 to 0.5 of one character
repeated."""
MIN_CHUNKS_PER_TOKEN = 0.98
"""Chunks per token below which a gap between chunks is no inter-token latency."""
BUSIEST_CLIENT = 0.9
"""Share of a core above which the run is unproven if lateness is not known."""
MAX_LATE_SHARE = 0.1
"""Share of the mean TTFT by which requests may be sent late, on average."""
MIN_LATE_S = 0.05
"""Mean lateness below this never makes a run invalid, even with a short TTFT."""
MIN_OFFERED_SHARE = 0.95
"""Share of the asked rate that must be offered."""
MAX_STEAL = 0.02
"""Share of a node's CPU time that a hypervisor may give to others before it is worth a note."""
MAX_OTHER_SHARE = 0.05
"""Share of the client's node that processes of others may use before it is worth a note."""
MIN_OTHER_CORES = 0.2
"""Cores that other processes may always use."""


def check_completed(seen: Observation) -> Iterator[Finding]:
    """Every request completed, and none failed: with all failed, vLLM reports a TTFT of 0 ms."""
    asked, result = seen.workload.num_prompts, seen.result
    fault = seen.controls.fault if seen.controls else ""
    if result.completed is None:
        yield unproven("completed", "the client's result does not say how many requests completed")
        if result.failed:
            yield invalid("completed", f"{result.failed} requests failed")
        return
    if isinstance(asked, str):
        yield unproven("completed", "the number of requests asked is unknown")
        asked = result.completed + (result.failed or 0)
    if result.failed is None:
        yield unproven("completed", "the client's result does not say how many requests failed")
    silent = [
        tokens
        for answer, tokens, error in zip(
            result.answer_digests, result.output_lens, result.errors, strict=False
        )
        if tokens > 0 and not answer and not error
    ]
    if silent:
        said = f"{len(silent)} of {asked} requests claim {sum(silent)} tokens and have no text"
        many = len(silent) > MAX_SILENT_SHARE * asked
        # A few may consist of special tokens, which are not shown as text.
        yield invalid("completed", said) if many else note("completed", said)
    if result.completed != asked or result.failed:
        answered = f"{result.completed} of {asked}" if result.completed else f"none of {asked}"
        first = next((e.strip().splitlines()[-1] for e in result.errors if e.strip()), None)
        yield invalid(
            "completed",
            f"{answered} requests completed, {result.failed or 0} failed"
            + (f"; first error: {_printable(first[:200])}" if first else "")
            + (f"; a prompt asked by itself: {fault}" if fault and not result.completed else ""),
        )


def _printable(text: str) -> str:
    """Return *text* without what would steer a terminal."""
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


def check_answers(seen: Observation) -> Iterator[Finding]:
    """Different prompts had different answers, unless the weights answer everything alike."""
    alone = seen.controls.answers if seen.controls else ()
    if seen.controls and seen.controls.fault:
        yield invalid("answers", f"a prompt asked by itself after the run: {seen.controls.fault}")
    tokens, completed = seen.result.total_output_tokens or 0, seen.result.completed or 0
    few = tokens < MIN_COMPARED_TOKENS * completed
    if (short := _short_text(seen)) is not None:
        yield invalid("answers", short)
        return
    again = seen.repeated.answers if seen.repeated else ()
    if not seen.result.answers_identical or few or len(again) > 1:
        return  # the same requests, asked again, tell more: ``answers_under_load``
    said = f"all {len(seen.result.answer_digests)} answers are the same text"
    if not alone or seen.workload.dataset != "random":
        yield unproven("answers", f"{said}; whether they should differ is not known")
    elif len(set(alone)) == 1:
        yield unproven(
            "answers",
            f"{said}, as are those to {len(alone)} prompts asked one by one ({alone[0][:20]!r}): "
            "with these weights a wrong answer would not show",
        )
    else:
        yield invalid(
            "answers",
            f"{said}, but {len(alone)} prompts asked one by one have {len(set(alone))} "
            "different ones: what was served under load is wrong",
        )


def _short_text(seen: Observation) -> str | None:
    """Return what is wrong if the server counts too few tokens in every text that it sent."""
    controls = seen.controls
    if controls is None or len(controls.recounted) < 2:
        return None
    if any(counted >= MIN_TEXT_SHARE * claimed for claimed, counted in controls.recounted):
        return None
    claimed, counted = (sum(numbers) for numbers in zip(*controls.recounted, strict=True))
    alike, first = len(set("".join(controls.answers))) == 1, controls.answers[0][:1]
    repeated = f"they consist of {first!r} alone, as with broken weights"
    cause = repeated if alike else "text is missing"
    return (
        f"{len(controls.recounted)} prompts asked one by one have {claimed} output tokens by the "
        f"server's usage, but it counts {counted} in their texts, sent back as prompts: {cause}"
    )


def check_tokens(seen: Observation) -> Iterator[Finding]:
    """Output is as long as asked, and input too where the client makes the prompts."""
    workload, result = seen.workload, seen.result
    if result.completed and result.total_output_tokens == 0:
        yield invalid("tokens", f"{result.completed} requests completed and none generated a token")
        return
    if result.total_input_tokens is None and result.total_output_tokens is None:
        yield unproven("tokens", "the client's result does not say how many tokens there were")
        return
    lengths = (workload.input_len, workload.output_len)
    unnamed = workload.dataset == UNKNOWN and any(isinstance(each, int) for each in lengths)
    if workload.dataset != "random" and not unnamed:
        yield unproven(
            "tokens",
            f"{_said(result.total_input_tokens)} input and {_said(result.total_output_tokens)} "
            f"output tokens; how many data set {workload.dataset!r} asks is not known",
        )
        return
    prefix = _number(seen, "random-prefix-len", 0.0)
    counted = {
        "output": (result.total_output_tokens, result.output_lens, workload.output_len, 0.0),
        "input": (result.total_input_tokens, result.input_lens, workload.input_len, prefix),
    }
    asked = _requests_asked(seen)
    for what, (got, each, length, more) in counted.items():
        if not isinstance(length, int) or asked is None or more is None:
            yield unproven("tokens", f"{_said(got)} {what} tokens; how many were asked is unknown")
        elif got is None:
            yield unproven("tokens", f"how many {what} tokens there were is unknown")
        elif "random-range-ratio" in seen.client_options:
            yield from _varied(seen, what, each, length)
        elif got != (whole := asked * (length + int(more))):
            yield from _other(seen, what, got, whole, each)


def _said(count: int | None) -> str:
    """Return a count as a sentence has it."""
    return "an unknown number of" if count is None else str(count)


def _requests_asked(seen: Observation) -> int | None:
    """Return how many requests the totals are of; None if unknown.

    A file from elsewhere may name the lengths and not the requests: those that completed tell
    then whether outputs ended early.
    """
    asked = seen.workload.num_prompts
    if isinstance(asked, int):
        return asked
    return seen.result.completed if seen.workload.options == UNKNOWN else None


def _number(seen: Observation, option: str, default: float) -> float | None:
    """The value of a numeric option of the client; None if it is none."""
    try:
        return float(seen.client_options.get(option, default))
    except ValueError:
        return None


def _varied(seen: Observation, what: str, each: Sequence[int], length: int) -> Iterator[Finding]:
    """Lengths that the client draws around *length*: none is outside."""
    ratio = _number(seen, "random-range-ratio", 0.0)
    prefix = _number(seen, "random-prefix-len", 0.0) if what == "input" else 0.0
    templated = what == "input" and is_chat(seen)
    if ratio is None or prefix is None or not each or templated:
        yield unproven("tokens", f"{what} lengths vary; the expected range is unknown")
        return
    low, high = length * (1 - ratio) + prefix - 1, length * (1 + ratio) + prefix + 1
    strange = [tokens for tokens in each if not low <= tokens <= high]
    if strange:
        yield invalid(
            "tokens",
            f"{what} has {strange[0]} tokens, expected {low + 1:.0f} to {high - 1:.0f}",
        )


def _other(
    seen: Observation, what: str, got: int, whole: int, each: Sequence[int]
) -> Iterator[Finding]:
    """Other lengths than asked: a chat template adds as many tokens to every prompt."""
    if what == "input" and is_chat(seen) and got > whole and len(set(each)) == 1:
        added = (got - whole) // max(1, len(each))
        yield note("tokens", f"the server counts {added} tokens more a prompt: its chat template")
    elif what == "input" and seen.foreign_tokenizer is not None:
        yield unproven(
            "tokens",
            f"{got} input tokens by the server's count, asked {whole} by the tokenizer of "
            f"{seen.foreign_tokenizer}; name the model's own in [bench] args (--tokenizer)",
        )
    elif seen.workload.options == UNKNOWN:
        ended = what == "output" and got < whole
        why = "outputs ended early, and whether --ignore-eos was given is unknown"
        yield unproven(
            "tokens",
            f"{got} {what} tokens, asked {whole}: "
            + (why if ended else "the options that could explain it are unknown"),
        )
    else:
        yield invalid("tokens", f"{got} {what} tokens, asked {whole}")


def is_chat(seen: Observation) -> bool:
    """Tell whether prompts were sent as chat messages, which a template surrounds."""
    raw = seen.result.raw
    return any("chat" in str(raw.get(name, "")) for name in ("backend", "endpoint_type"))


def check_chunks(seen: Observation) -> Iterator[Finding]:
    """Gaps are gaps between tokens: with several tokens per chunk, ITL is something else."""
    chunks, tokens = seen.result.chunks, seen.result.total_output_tokens
    if chunks is None:
        yield unproven(
            "chunks",
            "no entry per request (--save-detailed), so chunks cannot be held against "
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


def check_zeros(seen: Observation) -> Iterator[Finding]:
    """No latency or rate of a completed run is zero."""
    for name, metric in METRICS.items():
        value = None if metric.zero else metric.value(seen)
        if value is not None and value <= 0:
            yield invalid("zeros", f"{name} = {value:g}, which no server that answers can show")


def check_client(seen: Observation) -> Iterator[Finding]:
    """The client sent its requests in time: what is late in sending is late in reading too.

    A busy client is no fault by itself; where it cannot be seen how late it was, the run is
    unproven.
    """
    late = lateness_s(seen.result, seen.workload)
    cpu = "" if seen.client_cpu is None else f"; it used {seen.client_cpu:.0%} of a core"
    if not late:
        if finite(seen.result.raw.get("client_mean_send_late_ms")) is not None:
            return  # it says so itself: ``client_lateness``
        if seen.client_cpu is None or seen.client_cpu > BUSIEST_CLIENT:
            yield unproven("client", f"how late the client sent its requests is not known{cpu}")
        return
    mean_s, ttfts = sum(late) / len(late), seen.result.ttft_s
    share = mean_s * len(ttfts) / sum(ttfts) if sum(ttfts) > 0 else 0.0
    if mean_s > MIN_LATE_S and share > MAX_LATE_SHARE:
        yield invalid(
            "client",
            f"the client sent its requests {mean_s * 1000:.0f} ms late on average (the latest "
            f"{max(late) * 1000:.0f} ms), {share:.0%} of the mean TTFT, limit "
            f"{MAX_LATE_SHARE:.0%}{cpu}; lower max_concurrency",
        )


def check_offered(seen: Observation) -> Iterator[Finding]:
    """The rate that was offered is the rate that was asked; else latencies are of another load."""
    asked, offered = seen.workload.request_rate, offered_rate(seen.result)
    if not isinstance(asked, int | float):
        return
    if offered is None:
        yield unproven("offered", f"{asked:g} requests/s were asked; how many were sent is unknown")
        return
    wait_ms, held = METRICS["mean_client_queue_time_ms"].value(seen), ""
    if wait_ms is not None:
        held = f"; requests waited {wait_ms:.0f} ms on average before they were sent"
    # The client scales its gaps so that n requests take n / rate seconds (vLLM 0.32,
    # ``get_request``); from the first to the last these are n - 1 gaps.
    count = len(seen.result.start_s)
    if offered < asked * MIN_OFFERED_SHARE * (count - 1) / count:
        yield note(
            "offered",
            f"{offered:.3g} requests/s were sent, {asked:g} asked (at least "
            f"{MIN_OFFERED_SHARE:.0%}){held}; latencies are not judged: max_concurrency or the "
            "client held requests back",
            voids=METRICS.voided_by("offered"),
        )
    elif wait_ms is not None and _matters(wait_ms, METRICS["mean_ttft_ms"].value(seen)):
        yield note(
            "offered",
            f"the rate was offered{held}, which TTFT and E2EL leave out; "
            "mean_ttft_including_client_queue_ms counts it",
        )


def _matters(wait_ms: float, ttft_ms: float | None) -> bool:
    """Whether a wait is long, by itself and beside the mean TTFT."""
    return wait_ms > MIN_LATE_S * 1000 and wait_ms > MAX_LATE_SHARE * (ttft_ms or 0.0)


def check_client_node(seen: Observation) -> Iterator[Finding]:
    """The client's node was this session's alone; a busy one slows whatever is measured on it."""
    load = seen.client_node
    if load is None:
        return
    said = []
    if load.steal > MAX_STEAL:
        said.append(f"{load.steal:.0%} of its CPU time went to other machines (steal)")
    if (load.other_cores or 0.0) > max(MIN_OTHER_CORES, MAX_OTHER_SHARE * load.cores):
        named = f": {', '.join(load.other_processes)}" if load.other_processes else ""
        said.append(f"other processes used {load.other_cores:.1f} of {load.cores} cores{named}")
    if said:
        yield note(
            "client_node",
            f"the client's node was busy: {'; '.join(said)} (load average {load.load_1m:.1f})",
        )
