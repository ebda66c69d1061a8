"""Transfers of a running deployment: what is too slow, what is said of it, what is kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pytest_pdserve.judge.running_transfer import check_transfer_speed
from pytest_pdserve.judge.running_transfer import faster
from pytest_pdserve.judge.running_transfer import slow_pairs
from pytest_pdserve.judge.running_transfer import tcp_text
from pytest_pdserve.plan.nixlbench import nixlbench_gb_s
from pytest_pdserve.plan.transfer import running_cases
from pytest_pdserve.results.bare_transfers import BareKey
from pytest_pdserve.results.bare_transfers import keep_bare
from pytest_pdserve.results.bare_transfers import load_bare
from pytest_pdserve.values.observation import Observation
from pytest_pdserve.values.result import BenchResult
from pytest_pdserve.values.running_transfer import RunningTransfer
from pytest_pdserve.values.topology import Topology
from pytest_pdserve.values.transfer import Pair
from pytest_pdserve.values.transfer import PairFigures
from pytest_pdserve.values.transfer import TransferBackend
from pytest_pdserve.values.transfer import TransferFigure
from pytest_pdserve.values.transfer import TransferRecord
from pytest_pdserve.values.transfer import TransferShape
from pytest_pdserve.values.workload import Workload
from tests.support.systems import LEAST
from tests.support.systems import loaded

SHAPE = TransferShape(id="512tok", descriptors=864, descriptor_bytes=18 * 1024)
LONG = RunningTransfer(
    reader="decode[0]",
    source="prefill[0]",
    pair=Pair(reader="h02", source="h01"),
    backend="UCX",
    provider="",
    prompt_tokens=4096,
    transfers=3,
    ms=24.0,
    transfer_bytes=127e6,
    descriptors=6912.0,
    posting_ms=8.0,
    bare_gb_s=3.3,
    bare_descriptors=6912,
)
"""As four H200 showed it (5.3 GB/s)."""
SHORT = replace(LONG, prompt_tokens=512, ms=7.9, transfer_bytes=16e6)
TCP = replace(LONG, ms=343.0, provider="UCX_TLS=cuda_copy,tcp")
"""The same at the speed of TCP (0.37 GB/s)."""


@pytest.mark.parametrize(
    ("found", "slow"),
    [
        ((SHORT, LONG), False),
        ((replace(SHORT, ms=50.0), LONG), False),
        ((SHORT, TCP), True),
    ],
    ids=["cuda_ipc", "only the longest prompt counts", "TCP"],
)
def test_a_pair_is_slow_if_its_longest_prompt_is(
    found: tuple[RunningTransfer, ...], slow: bool
) -> None:
    assert bool(slow_pairs(found, 3.0, source="here")) is slow


def test_half_of_the_promise_is_asked_and_the_message_says_all_that_helps() -> None:
    said = slow_pairs([TCP], 3.0, source="[transfer] floor_gb_s of x.toml")
    assert said == {
        ("decode[0]", "prefill[0]"): (
            "decode[0] on h02 <- prefill[0] on h01 by UCX (UCX_TLS=cuda_copy,tcp), 4096 tokens: "
            "343.00 ms (0.37 GB/s, 6912 descriptors, posting 8.00 ms; NIXL without a model: 3.3 "
            "GB/s), expected at least 1.5 GB/s (half of 3: [transfer] floor_gb_s of x.toml); "
            "UCX_TLS=cuda_copy,tcp leaves only TCP: name a faster transport in UCX_TLS, or remove "
            "it"
        )
    }
    just = replace(LONG, ms=127e6 / 1.5 / 1e6)
    assert slow_pairs([just], 3.0, source="here") == {}


@pytest.mark.parametrize(
    ("backend", "provider", "said"),
    [
        ("UCX", "UCX_TLS=tcp", "UCX_TLS=tcp leaves only TCP: "),
        ("UCX", "UCX_TLS=cuda_copy,tcp", "UCX_TLS=cuda_copy,tcp leaves only TCP: "),
        ("UCX", "UCX_TLS=rc,tcp", "NIXL may have fallen back to TCP: with UCX_PROTO_INFO"),
        ("UCX", "UCX_TLS=^cuda_ipc", "NIXL may have fallen back to TCP: with UCX_PROTO_INFO"),
        ("UCX", "", "NIXL may have fallen back to TCP: with UCX_PROTO_INFO"),
        ("LIBFABRIC", "FI_PROVIDER=tcp", "FI_PROVIDER=tcp is libfabric's TCP: "),
        ("LIBFABRIC", "FI_PROVIDER=efa", "NIXL may have fallen back to TCP: with FI_LOG_LEVEL"),
    ],
)
def test_tcp_is_named_only_where_nothing_else_is_left(
    backend: TransferBackend, provider: str, said: str
) -> None:
    assert tcp_text(backend, provider).startswith(said)


def test_the_faster_of_two_measurements_counts() -> None:
    assert faster([SHORT, TCP], [LONG]) == (SHORT, LONG)
    assert faster([SHORT, LONG], [TCP]) == (SHORT, LONG)


@pytest.mark.parametrize(
    ("text", "lengths"),
    [
        ("[transfer]\nprompt_lens = [512, 4096, 1024]\n", (512, 4096)),
        ("[transfer]\nprompt_lens = [512]\n", (256, 512)),
        ("[transfer]\nprompt_lens = [1]\n", (1,)),
    ],
    ids=["shortest and longest", "half of the one", "one token"],
)
def test_pairs_are_measured_at_two_lengths(
    text: str, lengths: tuple[int, ...], tmp_path: Path
) -> None:
    cases = running_cases(loaded(tmp_path, LEAST + text))
    assert tuple(case.prompt_tokens for case in cases) == lengths


def key(**changes: object) -> BareKey:
    """What a bare figure is kept under."""
    given: dict[str, object] = {
        "hosts": ("h02", "h01"),
        "fingerprint": "abc",
        "backend": "UCX",
        "provider": "UCX_TLS=tcp",
        "versions": {"nixl": "1.5.1", "vllm": "0.32.0"},
        "shape": SHAPE,
    }
    return BareKey(**{**given, **changes})  # type: ignore[arg-type]


def test_a_bare_figure_is_kept_for_its_host_versions_and_shape(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    figure = TransferFigure(shape=SHAPE, first_ms=9.0, ms=(4.0,), posting_ms=(1.0,))
    measured = PairFigures(
        pair=LONG.pair, backend="UCX", provider="", memory="VRAM", figures=(figure,)
    )
    record = TransferRecord(
        session="s",
        system="x",
        fingerprint="abc",
        measured_at="2026-11-28T10:00:00Z",
        measured=measured,
    )
    assert load_bare(key()) is None
    keep_bare(key(), record)
    assert load_bare(key()) == record
    assert load_bare(key(versions={"nixl": "1.5.1", "vllm": "0.33.0"})) == record
    others = (
        {"hosts": ("h03", "h01")},
        {"fingerprint": "other"},
        {"provider": ""},
        {"versions": {"nixl": "1.6.0"}},
        {"shape": replace(SHAPE, descriptors=432)},
    )
    assert [load_bare(key(**change)) for change in others] == [None] * len(others)
    key().path.write_text("{}")
    assert load_bare(key()) is None


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("Block Size (B)   Batch Size   B/W (GB/Sec)   Avg Lat. (us)\n18432  864  3.8  4.1\n", 3.8),
        (
            "Block Size (B)   Batch Size   B/W (MiB/Sec)  B/W (GiB/Sec)  B/W (GB/Sec)\n"
            "18432  1  1  1  1\n18432  864  3624  3.5  3.8\n",
            3.8,
        ),
        ("Block Size (B)   Batch Size   B/W (GB/Sec)\n18432  432  3.8\n", None),
        ("Block Size (B)   Batch Size   B/W (GB/Sec)\n18432  864  nan\n", None),
        ("Block Size (B)   Batch Size   B/W (GB/Sec)\n18432  864  0.0\n", None),
        ("18432  864  3.8\n", None),
        ("", None),
    ],
    ids=["a table", "more columns", "another shape", "nan", "0", "no titles", "nothing"],
)
def test_a_rate_is_read_under_its_title_and_of_its_shape(text: str, rate: float | None) -> None:
    assert nixlbench_gb_s(text, SHAPE) == rate


@pytest.mark.parametrize("why", ["", "decode[0] shows no vllm:nixl_bytes_transferred"])
def test_a_speed_that_is_not_shown_leaves_a_run_unproven(why: str) -> None:
    seen = Observation(
        topology=Topology.parse("1p1d"),
        workload=Workload(input_len=8, output_len=8, num_prompts=1),
        result=BenchResult(
            completed=1,
            failed=0,
            duration_s=1.0,
            total_input_tokens=8,
            total_output_tokens=8,
            raw={},
        ),
        why_speed_unproven=why,
    )
    found = [(f.check, f.severity, f.message) for f in check_transfer_speed(seen)]
    assert found == ([("transfer_speed", "unproven", why)] if why else [])
