"""Judgement of a start of servers by its records and its answers. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import dataclass

from pytest_pdserve.values.gate_state import GateStart
from pytest_pdserve.values.gate_state import Outcome
from pytest_pdserve.values.gate_state import Side
from pytest_pdserve.values.record import Record
from pytest_pdserve.values.stack import IMAGE
from pytest_pdserve.values.stack import SERVE_ARGS

NOT_OF_SERVERS = frozenset({"client", "client_lateness", "figures", "foreign_requests", "nodes"})
"""Checks that fail because of the client, its machine or other users, not of the servers."""
ARITHMETIC = frozenset({"vllm", "torch", IMAGE, SERVE_ARGS})
"""Components that may change the order of additions, so that equally likely tokens may change."""
_CHANGED_SHARE = 0.5
"""Share of answers that begin with another word above which the order of additions is not
the cause."""


def outcome_of(records: Sequence[Record]) -> tuple[Outcome, str]:
    """Return the outcome of a start with these runs, and the reason if it is not OK."""
    for record in records:
        if record.invalid:
            of_servers = [f for f in record.invalid if f.check not in NOT_OF_SERVERS]
            first = (of_servers or record.invalid)[0]
            why = f"the run of {record.workload.id} is invalid: {first.check}: {first.message}"
            return (Outcome.FAULT if of_servers else Outcome.TROUBLE), why
    return Outcome.OK, ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerComparison:
    """The result of comparing greedy answers of both stacks to the same prompts."""

    faults: tuple[str, ...] = ()
    """A sentence for each proof of wrong tokens of B."""
    notes: tuple[str, ...] = ()
    """A sentence for each difference that proves no fault, and for answers not compared."""


def judge_answers(starts: Sequence[GateStart], components: Sequence[str]) -> AnswerComparison:
    """Compare B's greedy answers with A's, and A's with each other, topology by topology.

    :param components: what differs between the stacks.
    """
    topologies = dict.fromkeys(start.step.topology for start in starts)
    statements = [s for name in topologies for s in _of_topology(starts, name, components)]
    return AnswerComparison(
        faults=tuple(text for is_fault, text in statements if is_fault),
        notes=tuple(text for is_fault, text in statements if not is_fault),
    )


def _of_topology(
    starts: Sequence[GateStart], topology: str, components: Sequence[str]
) -> Iterator[tuple[bool, str]]:
    """Yield statements about the answers of a topology, each with whether it is a fault of B."""
    a, b = (_answers(starts, topology, side) for side in ("A", "B"))
    if len(a) < 2 or len(b) < 2:
        return
    count = len(a[0])
    unstable = [place for place in range(count) if len({answers[place] for answers in a}) > 1]
    if unstable:
        yield (
            False,
            f"{topology}: A's own greedy answers to {len(unstable)} of {count} prompts differ from "
            "start to start, so B's are not compared with them",
        )
    if count > 1 and len({*a[0]}) == 1:
        yield (
            False,
            f"{topology}: A answers all {count} prompts with one text, so wrong tokens of B might "
            "not show",
        )
    stable = [place for place in range(count) if place not in unstable]
    changed = [place for place in stable if all(e[place] != a[0][place] for e in b)]
    if changed:
        arithmetic = sorted(ARITHMETIC & {*components})
        why = f"another {' and '.join(arithmetic)} may add in another order" if arithmetic else None
        if unstable:
            why = "A does not always repeat its own answers"
        yield _of_changed(a[0], b, changed, topology=topology, inexact=why)


def _of_changed(
    a: Sequence[str],
    b: Sequence[Sequence[str]],
    changed: Sequence[int],
    *,
    topology: str,
    inexact: str | None,
) -> tuple[bool, str]:
    """Return a statement about answers that differ at every start of B, and whether it is a fault.

    :param a: answers of A, the same at all of its starts.
    :param changed: indices of the answers that differ.
    :param inexact: why correct stacks may answer differently; None if they may not.
    """
    shown = changed[0]
    statement = (
        f"{topology}: B's greedy answers to {len(changed)} of {len(a)} prompts differ from A's at "
        f"all {len(b)} starts, and A's to these never differ from each other: A answers "
        f"{a[shown]!r:.60}, B {b[0][shown]!r:.60}"
    )
    if inexact is None:
        return True, f"wrong tokens: {statement}"
    begun = [place for place in changed if all(_other_word(e[place], a[place]) for e in b)]
    if len(begun) > _CHANGED_SHARE * len(a):
        return True, f"wrong tokens: {statement}; {len(begun)} differ from the first word on"
    return False, f"{statement}; {inexact}, so this proves no fault"


def _answers(starts: Sequence[GateStart], topology: str, side: Side) -> list[tuple[str, ...]]:
    """Return the answers of every start that has answers; none if their numbers differ."""
    by_start = [
        start.answers
        for start in starts
        if start.step.topology == topology
        and start.step.side == side
        and start.answers
        and not start.step.swap
    ]
    return by_start if len({*map(len, by_start)}) <= 1 else []


def _other_word(one: str, other: str) -> bool:
    return one.split()[:1] != other.split()[:1]
