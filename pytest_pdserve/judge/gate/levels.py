"""Thresholds of the gate rule: blocks against B for a NO-GO, pairs allowed for a GO. Pure."""

from __future__ import annotations

import functools

from pytest_pdserve.values.rules import GATE_RULE


def needed_against(blocks: int) -> int:
    """Return the number of *blocks* that must count against B for a NO-GO: two thirds of them."""
    return max(GATE_RULE.blocks_against, -(-2 * blocks // 3))


def pairs_of(blocks: int) -> int:
    """Return the number of pairs of a start of B and a start of A in *blocks* blocks."""
    return (2 * blocks) ** 2


@functools.cache
def allowed_pairs(blocks: int) -> int:
    """Return the number of pairs that may be beyond the margin; -1 before there are enough blocks.

    The number of pairs beyond the margin is the statistic U of the rank-sum test (Mann and Whitney
    1947) of B's runs, shifted by the margin, against A's. The result is the largest number that a
    metric worse by exactly the margin does not exceed with a probability of at most
    :attr:`.GateRule.look_level`; 0 after two blocks, whose probability is 1/70.
    """
    if blocks < GATE_RULE.min_good_blocks:
        return -1
    ways = _ways(2 * blocks)
    most = GATE_RULE.look_level * sum(ways)
    cumulated = 0
    for pairs, count in enumerate(ways):
        cumulated += count
        if cumulated > most:
            return max(0, pairs - 1)
    raise AssertionError("the probabilities of all numbers of pairs add up to 1")


def _ways(runs: int) -> list[int]:
    """Return the number of orders of *runs* runs of each stack with 0, 1, 2, … pairs beyond.

    These are the coefficients of the Gaussian binomial of 2n over n, by whose recurrence Mann and
    Whitney tabulate U: the product over i = 1 … n of (1 - q^(n+i)) / (1 - q^i), exact.
    """
    most = runs * runs
    ways = [1] + [0] * most
    for i in range(1, runs + 1):
        for power in range(most, runs + i - 1, -1):
            ways[power] -= ways[power - runs - i]
        for power in range(i, most + 1):
            ways[power] += ways[power - i]
    return ways
