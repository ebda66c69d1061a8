"""vLLM's own benchmark client, imported once and run again and again: ``client = "vllm"``.

A script for the Python of the vLLM that measures; it imports the standard library and vLLM, and
nothing of this package, so that it also runs in an image. Its only argument is a folder, where it
looks for ``1.job.json``, ``2.job.json``, …, each with the arguments of ``vllm bench serve``
(``argv``) and a ``log``. It answers each with ``N.done.json``: ``code``, 0 if the client ended
well. ``ready.json`` says that vLLM is imported, or why it cannot be used. It ends when ``end``
appears, or when its parent is gone.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

POLL_S = 0.02
Bench = Callable[[list[str]], None]


def load_bench() -> Bench:
    """Return vLLM's client as a function of its arguments.

    :raises ImportError: if this vLLM has none, or its internals moved.
    :raises AttributeError: likewise.
    """
    from vllm.benchmarks import serve
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    add, run = serve.add_cli_args, serve.main_async

    def bench(argv: list[str]) -> None:
        parser = FlexibleArgumentParser()
        add(parser)
        asyncio.run(run(parser.parse_args(argv)))

    return bench


def write(path: Path, content: dict[str, Any]) -> None:
    """Write a whole file or none."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps(content), encoding="utf-8")
    part.rename(path)


def run_job(bench: Bench, job: dict[str, Any]) -> int:
    """Run the client once, with its output in the job's log."""
    with (
        open(job["log"], "a", encoding="utf-8", buffering=1) as log,
        contextlib.redirect_stdout(log),
        contextlib.redirect_stderr(log),
    ):
        try:
            bench(job["argv"])
        except SystemExit as end:
            return end.code if isinstance(end.code, int) else 1
        except BaseException:
            traceback.print_exc()
            return 1
    return 0


def serve_jobs(folder: Path, bench: Bench) -> None:
    """Run jobs in order until ``end`` appears or the parent is gone."""
    parent, number = os.getppid(), 1
    while not (folder / "end").exists() and os.getppid() == parent:
        job = folder / f"{number}.job.json"
        if not job.exists():
            time.sleep(POLL_S)
            continue
        code = run_job(bench, json.loads(job.read_text(encoding="utf-8")))
        write(folder / f"{number}.done.json", {"code": code})
        number += 1


def main() -> int:
    """Import vLLM, say so, and serve jobs."""
    parser = argparse.ArgumentParser(description="Run vLLM's benchmark client again and again.")
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    try:
        bench = load_bench()
    except Exception as error:  # whatever an import of vLLM raises
        write(folder / "ready.json", {"error": f"{type(error).__name__}: {error}"})
        return 1
    write(folder / "ready.json", {"error": None})
    serve_jobs(folder, bench)
    return 0


if __name__ == "__main__":
    sys.exit(main())
