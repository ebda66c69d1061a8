"""Tries of every kind of input, with what is wrong: ``python -m tests.support.fuzz.run``."""

from __future__ import annotations

import argparse
import collections
import faulthandler
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

from tests.support.fuzz.kinds import do
from tests.support.fuzz.kinds import shares
from tests.support.fuzz.seeds import make_template
from tests.support.fuzz.world import LIMIT_S
from tests.support.fuzz.world import Outcome
from tests.support.fuzz.world import World

CHUNK = 20
_MEMORY = Path("/dev/shm")
_world: World | None = None
Numbered = tuple[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """One try that was done."""

    kind: str
    number: int
    outcome: Outcome


def main(argv: list[str] | None = None) -> int:
    """Do all tries, or one of them; return 1 if anything is wrong."""
    options = _options(argv)
    if options.only:
        kind, _, number = options.only.partition(":")
        tries = [(kind, int(number))]
    else:
        tries = list(shares(options.tries))
    began, codes, wrong = time.monotonic(), collections.Counter[str](), 0
    for done in _all(tries, options.seed, options.workers):
        codes[f"{done.outcome.code}"] += 1
        if done.outcome.trouble:
            wrong += 1
            print(_told(done, options.seed), flush=True)
        elif options.only:
            print(done.outcome.output)
    ended = ", ".join(f"{code}: {count}" for code, count in sorted(codes.items()))
    print(
        f"{len(tries)} tries, seed {options.seed!r}: {wrong} faults; exit codes {ended}; "
        f"{time.monotonic() - began:.0f} s"
    )
    return 1 if wrong or sum(codes.values()) < len(tries) else 0


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tries", type=int, default=10_000)
    parser.add_argument("--seed", default=str(int(time.time())))
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", default="", metavar="KIND:NUMBER")
    return parser.parse_args(argv)


def _told(done: Done, seed: str) -> str:
    trouble = "\n".join(done.outcome.trouble)
    return (
        f"== {done.kind}:{done.number}, exit code {done.outcome.code}: {trouble[-3000:]}\n"
        f"{done.outcome.output[-1500:]}\n"
        f"again: make fuzz SEED='{seed}' ONLY={done.kind}:{done.number}\n"
    )


def _all(tries: list[Numbered], seed: str, workers: int) -> Iterator[Done]:
    """Do the tries, in as many processes."""
    chunks = [tries[start : start + CHUNK] for start in range(0, len(tries), CHUNK)]
    memory = _MEMORY if os.access(_MEMORY, os.W_OK) else None
    root = Path(tempfile.mkdtemp(prefix="pdserve-fuzz-", dir=memory))
    context = multiprocessing.get_context("fork")
    try:
        with ProcessPoolExecutor(
            min(workers, len(chunks)), context, initializer=_settle, initargs=(str(root),)
        ) as pool:
            for each in [pool.submit(_do, chunk, seed) for chunk in chunks]:
                yield from each.result()
    except BrokenProcessPool:
        print("a process ended: its last try did not end, or ended it")
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _settle(root: str) -> None:
    """Make the world of this process."""
    global _world
    _world = World(Path(tempfile.mkdtemp(dir=root)))
    _world.settle()
    make_template(_world)


def _do(tries: list[Numbered], seed: str) -> list[Done]:
    assert _world is not None
    found = []
    for kind, number in tries:
        # What no signal interrupts: the stack is told, and the process ends.
        faulthandler.dump_traceback_later(4 * LIMIT_S, exit=True)
        outcome = do(_world, seed, kind, number)
        faulthandler.cancel_dump_traceback_later()
        found.append(Done(kind=kind, number=number, outcome=outcome))
    return found


if __name__ == "__main__":
    sys.exit(main())
