"""How many blocks make a metric worse, and how many pairs may be apart in a good one. Pure."""

from __future__ import annotations

import functools

from pytest_pdserve.values.rules import GATE_RULE


def needed_against(blocks: int) -> int:
    """Return how many of so many blocks must count against B for a NO-GO: two thirds of them."""
    return max(GATE_RULE.blocks_against, -(-2 * blocks // 3))


def pairs_of(blocks: int) -> int:
    """Return the pairs of a start of B and a start of A in so many blocks."""
    return (2 * blocks) ** 2


@functools.cache
def allowed_pairs(blocks: int) -> int:
    """Return how many pairs may be beyond the margin; -1 before there are enough blocks.

    The pairs beyond the margin are the statistic U of the rank-sum test (Mann and Whitney 1947) of
    B's runs, shifted by the margin, against A's. The largest number is returned that a metric worse
    by exactly the margin stays at or below with a probability of at most
    :attr:`.GateRule.look_level`; 0 after two blocks, whose probability is 1/70.
    """
    if blocks < GATE_RULE.min_good_blocks:
        return -1
    ways = _ways(2 * blocks)
    most = GATE_RULE.look_level * sum(ways)
    seen = 0
    for pairs, count in enumerate(ways):
        seen += count
        if seen > most:
            return max(0, pairs - 1)
    raise AssertionError("the probabilities of all numbers of pairs add up to 1")


def _ways(runs: int) -> list[int]:
    """Return how many orders of *runs* runs of each stack have 0, 1, 2, … pairs beyond.

    The coefficients of the Gaussian binomial of 2n over n, by whose recurrence Mann and Whitney
    tabulate U: the product over i = 1 … n of (1 - q^(n+i)) / (1 - q^i), exact.
    """
    most = runs * runs
    ways = [1] + [0] * most
    for i in range(1, runs + 1):
        for power in range(most, runs + i - 1, -1):
            ways[power] -= ways[power - runs - i]
        for power in range(i, most + 1):
            ways[power] += ways[power - i]
    return ways
