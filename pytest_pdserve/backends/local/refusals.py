"""Why GPUs cannot be used, in one sentence that names each reason once."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from pytest_pdserve.backends.hosts.facts import process_text
from pytest_pdserve.backends.hosts.nvml import Gpu

_IDLE_GIB = 1.0
"""Maximum memory in use on an idle GPU, e.g. by a display or a persistent driver."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """Why a GPU cannot be used; GPUs with equal reasons are named together."""

    verbs: tuple[str, str]
    """Verb for one GPU, and for several."""
    rest: str = ""
    """The clause after the verb; empty if it consists of :attr:`users` or memory in use."""
    users: tuple[int, ...] = ()
    """Ids of the processes that compute on it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedGpu:
    """A GPU that cannot be used."""

    gpu: Gpu
    why: Reason


def held_by(holder: str) -> Reason:
    """Return the reason that a session holds a GPU.

    :param holder: process of the session, in words.
    """
    return Reason(verbs=("is", "are"), rest=f"held by the session of {holder}")


def in_use(gpu: Gpu) -> Reason | None:
    """Return why a GPU may be in use; None if it is free.

    It is free if no process computes on it and at most :data:`_IDLE_GIB` of it is in use. If NVML
    does not report its memory, the processes decide; if it reports neither, it may be in use.
    """
    if gpu.users:
        pids = sorted({user.pid for user in gpu.users})
        return Reason(verbs=("is", "are"), users=tuple(pids))
    if gpu.used_gib is None and gpu.users is None:
        return Reason(
            verbs=("does", "do"),
            rest="not report memory in use or processes, so another process may be using it",
        )
    if gpu.used_gib is not None and gpu.used_gib > _IDLE_GIB:
        return Reason(verbs=("has", "have"))
    return None


def refusals(refused: Sequence[RefusedGpu]) -> str:
    """Return a clause for each reason, with all GPUs that it applies to; empty without any."""
    by_reason: dict[Reason, list[Gpu]] = {}
    for each in refused:
        by_reason.setdefault(each.why, []).append(each.gpu)
    return "; ".join(
        f"{_names(gpus)} {why.verbs[len(gpus) > 1]} {_rest(why, gpus)}"
        for why, gpus in by_reason.items()
    )


def _rest(why: Reason, gpus: Sequence[Gpu]) -> str:
    if why.rest:
        return why.rest
    if why.users:
        return "in use by " + ", ".join(_user(pid, gpus) for pid in why.users)
    used = _gib([gpu.used_gib for gpu in gpus])
    totals = {f"{gpu.memory_gib:.0f}" for gpu in gpus if gpu.memory_gib is not None}
    of = f" of {totals.pop()}" if len(totals) == 1 else ""
    return f"{used}{of} GiB in use, by processes that are not shown here"


def _user(pid: int, gpus: Sequence[Gpu]) -> str:
    """Return a process in words, with its memory on *gpus* if NVML reports it."""
    used = _gib([user.used_gib for gpu in gpus for user in gpu.users or () if user.pid == pid])
    each = " each" if len(gpus) > 1 else ""
    return process_text(pid) + (f" with {used} GiB{each}" if used else "")


def _gib(values: Sequence[float | None]) -> str:
    """Return the range of *values*; empty if none is known."""
    known = [value for value in values if value is not None]
    if not known:
        return ""
    low, high = f"{min(known):.1f}", f"{max(known):.1f}"
    return low if low == high else f"{low} to {high}"


def _names(gpus: Sequence[Gpu]) -> str:
    """Return the names of GPUs: ``GPUs 0 to 3 (NVIDIA H200)``."""
    names = [
        f"MIG slice {gpu.uuid} of GPU {gpu.index} ({gpu.name})" for gpu in gpus if gpu.is_slice
    ]
    by_model: dict[str, list[int]] = {}
    for gpu in gpus:
        if not gpu.is_slice:
            by_model.setdefault(gpu.name, []).append(gpu.index)
    whole = [
        f"GPU{'s' * (len(indices) > 1)} {_listed([*_ranges(sorted(indices))])} ({name})"
        for name, indices in by_model.items()
    ]
    return _listed([*whole, *names])


def _ranges(indices: Sequence[int]) -> Iterator[str]:
    """Yield sorted indices, three or more that follow each other as a range."""
    for _, group in groupby(enumerate(indices), key=lambda pair: pair[1] - pair[0]):
        run = [index for _, index in group]
        if len(run) > 2:
            yield f"{run[0]} to {run[-1]}"
        else:
            yield from map(str, run)


def _listed(names: Sequence[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last
