"""vLLM's own benchmark client, imported once and run again and again: ``client = "vllm"``.

A script that imports the standard library and vLLM, and nothing of this package, so that it also
runs in an image. In its folder it looks for ``1.job.json``, ``2.job.json``, …, each with arguments
of ``vllm bench serve`` (``argv``) and a ``log``, and answers each with ``N.done.json``: ``code``, 0
if the client ended well. A job with ``prepare`` only makes the prompts, which a later job with the
same load then finds. ``ready.json`` says that vLLM is imported, and its version, or why it cannot
be used. The worker ends when its parent is gone.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import json
import os
import pickle
import random
import re
import shutil
import sys
import time
import traceback
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from pathlib import Path
from typing import Any

POLL_S = 0.02
_INTERPRETER = re.compile(
    r"""(?P<quote>['"])(?P<quoted>/[^'"]*python[\d.]*)(?P=quote)"""
    r"""|(?P<plain>/\S*python[\d.]*)(?=\s|$)|env (?P<name>python[\d.]*)"""
)
_NOT_OF_PROMPTS = re.compile(
    r"base_url|host|port|endpoint|.*result.*|save_.*|metadata|disable_tqdm|goodput|.*percentile.*|"
    r".*rate|burstiness|ramp_up_.*|max_concurrency|label|ready_check_.*|header|profile"
)
"""Arguments that prompts do not depend on."""
KEPT = 8
"""Requests that the result file holds whole, so that they can be asked again."""
COMPLETIONS = ("openai", "vllm")
"""Values of ``--backend`` that send completions."""


def python_of(program: str) -> str | None:
    """Return the Python that a program of its environment, such as ``vllm``, is run by.

    :returns: None if the program is not there, or is not a script of Python.
    """
    beside = os.path.dirname(sys.executable)
    path = shutil.which(program, path=os.pathsep.join([beside, os.environ.get("PATH", "")]))
    if path is None:
        return None
    with open(path, "rb") as file:
        first = file.readline(4096)
        # An interpreter with a long path stands in the second line, which a shell runs.
        line = first if first.startswith(b"#!") and b"python" in first else file.readline(4096)
    found = _INTERPRETER.search(line.decode(errors="replace"))
    if found is None or not first.startswith(b"#!"):
        return None
    return found["quoted"] or found["plain"] or shutil.which(found["name"])


class MovedError(Exception):
    """Raised when this vLLM does not have its client where it is looked for."""


class Client:
    """vLLM's client as functions of its arguments."""

    def __init__(self, prompts: Path) -> None:
        """Import vLLM.

        :param prompts: folder of prompts that were made beforehand.
        :raises MovedError: if this vLLM has no such client, or has it elsewhere.
        :raises Exception: whatever an import of vLLM raises.
        """
        import numpy
        import vllm

        self.version = str(vllm.__version__)
        try:
            from vllm.benchmarks import serve

            self._take_over(serve, numpy.random)
        except (ImportError, AttributeError) as error:
            raise MovedError(f"{type(error).__name__}: {error}") from error
        self._prompts = prompts
        self._preparing = False
        self._tokenizers: dict[str, Any] = {}

    def _take_over(self, serve: Any, numpy_random: Any) -> None:
        """Have the functions of vLLM's client ask this for prompts and tokenizers."""
        parser = getattr(serve, "FlexibleArgumentParser", argparse.ArgumentParser)
        self._parser = parser(add_help=False)
        serve.add_cli_args(self._parser)
        self._run = serve.main_async
        self._numpy_random = numpy_random
        self._sample = serve.get_samples
        self._load_tokenizer = serve.get_tokenizer
        if (benchmark := getattr(serve, "benchmark", None)) is not None:
            self._benchmark = benchmark
            serve.benchmark = self._measure
        serve.get_samples = self._samples
        serve.get_tokenizer = self._tokenizer

    def run(self, argv: list[str]) -> None:
        """Measure."""
        asyncio.run(self._run(self._parser.parse_args(argv)))

    def prepare(self, argv: list[str]) -> None:
        """Make the prompts of a later run: the client is ended once it has them."""
        self._preparing = True
        try:
            with contextlib.suppress(_Prepared):
                self.run(argv)
        finally:
            self._preparing = False

    async def _measure(self, *args: Any, **options: Any) -> Any:
        """Measure, and add a few of the requests to the result, as they were sent."""
        result = await self._benchmark(*args, **options)
        if isinstance(result, dict):
            result["kept_requests"] = kept_requests(options)
        return result

    def _tokenizer(self, name: Any, *args: Any, **options: Any) -> Any:
        """Return a tokenizer; it is loaded once."""
        key = repr((name, args, sorted(options.items())))
        if key not in self._tokenizers:
            self._tokenizers[key] = self._load_tokenizer(name, *args, **options)
        return self._tokenizers[key]

    def _samples(self, args: argparse.Namespace, tokenizer: Any) -> Any:
        """Return the prompts of a load: those that were made before, if they were.

        Random numbers go on from where making them left off: arrivals are drawn from them too.
        """
        path = self._prompts / f"{_load_key(args)}.pickle"
        if path.exists() and not self._preparing:
            made, state, numpy_state = pickle.loads(path.read_bytes())  # noqa: S301 - our own
            path.unlink()
            random.setstate(state)
            self._numpy_random.set_state(numpy_state)
            return made
        made = self._sample(args, tokenizer)
        if self._preparing:
            path.parent.mkdir(exist_ok=True)
            part = path.with_suffix(".part")
            part.write_bytes(
                pickle.dumps((made, random.getstate(), self._numpy_random.get_state()))
            )
            part.rename(path)
            raise _Prepared
        return made


def kept_requests(options: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a sample of the requests that ``benchmark`` of vLLM sends with *options*.

    Only text completions, and none that is sent to a LoRA adapter.
    """
    if options.get("endpoint_type") not in COMPLETIONS or options.get("lora_modules"):
        return []
    requests = options.get("input_requests") or ()
    # The client asks for no penalty, whatever the model's generation_config.json says.
    fields = {"repetition_penalty": 1.0, "ignore_eos": bool(options.get("ignore_eos"))}
    fields |= options.get("extra_body") or {}
    return [
        {"index": index, "prompt": requests[index].prompt, "fields": fields}
        for index in sampled(len(requests))
        if _is_plain(requests[index])
    ]


def sampled(count: int) -> Sequence[int]:
    """Return the places of :data:`KEPT` of *count* requests, spread over all of them."""
    return sorted({count * number // KEPT for number in range(KEPT)} if count else ())


def _is_plain(request: Any) -> bool:
    """Whether prompt and common fields are all that a request consists of."""
    own = ("multi_modal_data", "request_overrides", "chat_messages", "lora_request")
    prompt = request.prompt
    listed = isinstance(prompt, list) and all(isinstance(each, int) for each in prompt)
    return (isinstance(prompt, str) or listed) and not any(
        getattr(request, name, None) for name in own
    )


class _Prepared(BaseException):
    """The prompts are made, and nothing is measured."""


def _load_key(args: argparse.Namespace) -> str:
    """A digest of all arguments that prompts may depend on."""
    parts = {k: repr(v) for k, v in vars(args).items() if not _NOT_OF_PROMPTS.fullmatch(k)}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def write(path: Path, content: dict[str, Any]) -> None:
    """Write a whole file or none."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps(content), encoding="utf-8")
    part.rename(path)


@contextlib.contextmanager
def output_to(path: str) -> Iterator[None]:
    """Have all that this process prints in a file, loggers and extensions included."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [os.dup(1), os.dup(2)]
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.dup2(log, 1)
        os.dup2(log, 2)
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, before in enumerate(kept, 1):
            os.dup2(before, number)
            os.close(before)
        os.close(log)


def run_job(work: Callable[[list[str]], None], job: dict[str, Any]) -> int:
    """Do one job, with its output in the job's log; return its exit code."""
    with output_to(job["log"]):
        try:
            work(job["argv"])
        except SystemExit as end:
            return end.code if isinstance(end.code, int) else 1
        except Exception:
            traceback.print_exc()
            return 1
    return 0


def serve_jobs(folder: Path, client: Client) -> None:
    """Do jobs in order until the parent is gone."""
    parent, number = os.getppid(), 1
    while os.getppid() == parent:
        name = f"{number}.job.json"
        # A listing asks a file server for what is new; a look at one name may be answered from what
        # this node remembers.
        if name not in os.listdir(folder):
            time.sleep(POLL_S)
            continue
        job = json.loads((folder / name).read_text(encoding="utf-8"))
        code = run_job(client.prepare if job["prepare"] else client.run, job)
        write(folder / f"{number}.done.json", {"code": code})
        number += 1


def main() -> int:
    """Import vLLM, say so, and do jobs."""
    parser = argparse.ArgumentParser(description="Run vLLM's benchmark client again and again.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--program", help="Run by the Python of this program instead")
    options = parser.parse_args()
    folder: Path = options.folder
    if options.program is not None:
        python = python_of(options.program)
        if python is None:
            why = f"{options.program} was not found, or is not a script that names its Python"
            write(folder / "ready.json", {"error": why, "moved": False})
            return 1
        os.execv(python, [python, __file__, str(folder)])  # noqa: S606 - there is no shell
    try:
        client = Client(folder / "prompts")
    except MovedError as error:
        traceback.print_exc()
        write(folder / "ready.json", {"error": str(error), "moved": True})
        return 1
    except Exception as error:  # whatever an import of vLLM raises
        traceback.print_exc()
        why = f"vLLM cannot be imported: {type(error).__name__}: {error}"
        write(folder / "ready.json", {"error": why, "moved": False})
        return 1
    write(folder / "ready.json", {"error": None, "version": client.version})
    serve_jobs(folder, client)
    return 0


if __name__ == "__main__":
    sys.exit(main())
