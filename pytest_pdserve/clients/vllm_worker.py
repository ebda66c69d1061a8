"""The worker of ``client = "vllm"``: imports vLLM's benchmark client once, and runs it repeatedly.

A script that imports only the standard library and vLLM, so that it also runs in an image. It reads
``1.job.json``, ``2.job.json``, … in its folder, each with arguments of ``vllm bench serve``
(``argv``) and a ``log``, and answers each with ``N.done.json``: ``code``, 0 if the client
succeeded. A job with ``prepare`` only makes the prompts, which a later job with the same load then
uses. ``ready.json`` reports that vLLM is imported, and its version, or why it cannot be used. The
worker ends when its parent process is gone.
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
"""Arguments on which prompts do not depend."""
KEPT = 8
"""Number of requests that the result file stores completely, so that they can be repeated."""
COMPLETIONS = ("openai", "vllm")
"""Values of ``--backend`` that send completions."""


def python_of(program: str) -> str | None:
    """Return the Python that runs a script such as ``vllm``.

    :returns: None if the script does not exist, or is not a Python script.
    """
    folder = os.path.dirname(sys.executable)
    path = shutil.which(program, path=os.pathsep.join([folder, os.environ.get("PATH", "")]))
    if path is None:
        return None
    with open(path, "rb") as file:
        first = file.readline(4096)
        # An interpreter with a long path is in the second line, which a shell runs.
        line = first if first.startswith(b"#!") and b"python" in first else file.readline(4096)
    found = _INTERPRETER.search(line.decode(errors="replace"))
    if found is None or not first.startswith(b"#!"):
        return None
    return found["quoted"] or found["plain"] or shutil.which(found["name"])


class MovedError(Exception):
    """Raised when this vLLM does not have its benchmark client at the expected place."""


class Client:
    """Runs vLLM's benchmark client in this process."""

    def __init__(self, prompts: Path) -> None:
        """Import vLLM.

        :param prompts: folder of prompts that were made in advance.
        :raises MovedError: if this vLLM has no benchmark client at the expected place.
        :raises Exception: whatever an import of vLLM raises.
        """
        import numpy
        import vllm

        self.version = str(vllm.__version__)
        try:
            from vllm.benchmarks import serve

            self._patch(serve, numpy.random)
        except (ImportError, AttributeError) as error:
            raise MovedError(f"{type(error).__name__}: {error}") from error
        self._prompts = prompts
        self._preparing = False
        self._tokenizers: dict[str, Any] = {}

    def _patch(self, serve: Any, numpy_random: Any) -> None:
        """Replace functions of vLLM's client, so that it gets prompts and tokenizers from here."""
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
        """Run the client with the arguments *argv*."""
        asyncio.run(self._run(self._parser.parse_args(argv)))

    def prepare(self, argv: list[str]) -> None:
        """Make the prompts of a later run, without measuring."""
        self._preparing = True
        try:
            with contextlib.suppress(_Prepared):
                self.run(argv)
        finally:
            self._preparing = False

    async def _measure(self, *args: Any, **options: Any) -> Any:
        """Run the benchmark, and add a few of the requests to the result, as they were sent."""
        result = await self._benchmark(*args, **options)
        if isinstance(result, dict):
            result["kept_requests"] = kept_requests(options)
        return result

    def _tokenizer(self, name: Any, *args: Any, **options: Any) -> Any:
        """Return a tokenizer, which is loaded only once."""
        key = repr((name, args, sorted(options.items())))
        if key not in self._tokenizers:
            self._tokenizers[key] = self._load_tokenizer(name, *args, **options)
        return self._tokenizers[key]

    def _samples(self, args: argparse.Namespace, tokenizer: Any) -> Any:
        """Return the prompts of a load, from a file if they were made in advance.

        The random state after making them is restored, because arrivals are drawn from it too.
        """
        path = self._prompts / f"{_load_key(args)}.pickle"
        if path.exists() and not self._preparing:
            prompts, state, numpy_state = pickle.loads(path.read_bytes())  # noqa: S301 - our own
            path.unlink()
            random.setstate(state)
            self._numpy_random.set_state(numpy_state)
            return prompts
        prompts = self._sample(args, tokenizer)
        if self._preparing:
            path.parent.mkdir(exist_ok=True)
            part = path.with_suffix(".part")
            part.write_bytes(
                pickle.dumps((prompts, random.getstate(), self._numpy_random.get_state()))
            )
            part.rename(path)
            raise _Prepared
        return prompts


def kept_requests(options: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a sample of the requests that ``benchmark`` of vLLM sends with *options*.

    Only text completions, without those of LoRA adapters.
    """
    if options.get("endpoint_type") not in COMPLETIONS or options.get("lora_modules"):
        return []
    requests = options.get("input_requests") or ()
    # The client requests no penalty, whatever the model's generation_config.json has.
    fields = {"repetition_penalty": 1.0, "ignore_eos": bool(options.get("ignore_eos"))}
    fields |= options.get("extra_body") or {}
    return [
        {"index": index, "prompt": requests[index].prompt, "fields": fields}
        for index in sampled(len(requests))
        if _is_plain(requests[index])
    ]


def sampled(count: int) -> Sequence[int]:
    """Return the indices of :data:`KEPT` of *count* requests, spread evenly."""
    return sorted({count * number // KEPT for number in range(KEPT)} if count else ())


def _is_plain(request: Any) -> bool:
    """Return whether a request has only a prompt and the common fields."""
    own = ("multi_modal_data", "request_overrides", "chat_messages", "lora_request")
    prompt = request.prompt
    listed = isinstance(prompt, list) and all(isinstance(each, int) for each in prompt)
    return (isinstance(prompt, str) or listed) and not any(
        getattr(request, name, None) for name in own
    )


class _Prepared(BaseException):
    """Raised to end the client once prompts are made."""


def _load_key(args: argparse.Namespace) -> str:
    """Return the digest of all arguments on which prompts may depend."""
    parts = {k: repr(v) for k, v in vars(args).items() if not _NOT_OF_PROMPTS.fullmatch(k)}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def write(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file atomically."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps(content), encoding="utf-8")
    part.rename(path)


@contextlib.contextmanager
def output_to(path: str) -> Iterator[None]:
    """Redirect all output of this process to a file, with that of loggers and C extensions."""
    sys.stdout.flush()
    sys.stderr.flush()
    originals = [os.dup(1), os.dup(2)]
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.dup2(log, 1)
        os.dup2(log, 2)
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, original in enumerate(originals, 1):
            os.dup2(original, number)
            os.close(original)
        os.close(log)


def run_job(work: Callable[[list[str]], None], job: dict[str, Any]) -> int:
    """Run one job, with its output in the job's log; return its exit code."""
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
    """Run jobs in order until the parent process is gone."""
    parent, number = os.getppid(), 1
    while os.getppid() == parent:
        name = f"{number}.job.json"
        # A listing queries the file server; a lookup of one name may use this node's stale cache.
        if name not in os.listdir(folder):
            time.sleep(POLL_S)
            continue
        job = json.loads((folder / name).read_text(encoding="utf-8"))
        code = run_job(client.prepare if job["prepare"] else client.run, job)
        write(folder / f"{number}.done.json", {"code": code})
        number += 1


def main() -> int:
    """Import vLLM, write ``ready.json``, and run jobs."""
    parser = argparse.ArgumentParser(description="Run vLLM's benchmark client repeatedly.")
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
