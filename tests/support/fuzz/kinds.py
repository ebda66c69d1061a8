"""Every kind of try, and how many of all tries are of it."""

from __future__ import annotations

import random
import traceback
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping

from tests.support.fuzz import answers
from tests.support.fuzz import files
from tests.support.fuzz import options
from tests.support.fuzz.world import Outcome
from tests.support.fuzz.world import World

Try = Callable[[random.Random, World], Outcome]
KINDS: Mapping[str, tuple[Try, int]] = {
    "system": (files.system, 10),
    "claims": (files.claims, 6),
    "expected": (files.expected, 4),
    "baseline": (files.baseline, 8),
    "record": (files.record, 8),
    "import": (files.imported, 10),
    "series": (files.series, 6),
    "settings": (files.settings, 4),
    "other-readers": (files.other_readers, 6),
    "something-else": (files.something_else, 6),
    "command": (options.command, 12),
    "session": (options.session, 6),
    "ini-key": (options.ini_key, 4),
    "served": (answers.served, 8),
    "printed": (answers.printed, 4),
    "reported": (answers.reported, 4),
    "measured": (answers.measured, 6),
}
"""By name: what is tried, and its share."""


def shares(tries: int) -> Iterator[tuple[str, int]]:
    """Yield kind and number of each of so many tries, or a few more: one of each kind at least."""
    total = sum(share for _, share in KINDS.values())
    for kind, (_, share) in KINDS.items():
        for number in range(max(1, round(tries * share / total))):
            yield kind, number


def do(world: World, seed: str, kind: str, number: int) -> Outcome:
    """Do one try; the same arguments do the same."""
    world.begin()
    source = random.Random(f"{seed}/{kind}/{number}")  # tests may draw as they like
    try:
        return KINDS[kind][0](source, world)
    except Exception:
        return Outcome(code=-1, trouble=[f"the try itself failed:\n{traceback.format_exc()}"])
