"""Submits a job through submitit, and parses sbatch's answer.

No other module imports submitit.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import wait
from dataclasses import dataclass
from pathlib import Path
from subprocess import CalledProcessError
from typing import TYPE_CHECKING
from typing import Any

from pytest_pdserve.backends.hosts.groups import signals_held
from pytest_pdserve.backends.slurm.holder import HolderConfig
from pytest_pdserve.backends.slurm.holder import hold
from pytest_pdserve.backends.slurm.planning import job_environment
from pytest_pdserve.results.redaction import environment_redactor
from pytest_pdserve.values.errors import AllocationError

if TYPE_CHECKING:
    from submitit import SlurmExecutor

_SLICE_S = 1.0
_ANSWERS = (
    re.compile(r"Submitted batch job (?P<job>\d+)(?: on cluster (?P<cluster>\S+))?"),
    re.compile(r"^\s*(?P<job>\d+)(?:;(?P<cluster>\S+))?\s*$", re.MULTILINE),  # sbatch --parsable
    re.compile(r"\bjob(?:[ _-]?id)?\b[ \t]*[:=#]?[ \t]*(?P<job>\d+)\b(?P<cluster>)", re.IGNORECASE),
    re.compile(r"(?<![\w.:/-])(?P<job>\d+)(?![\w:/-]|\.\d)(?P<cluster>)"),
)
"""Forms of an answer, the most reliable first: sbatch's own two, then those of wrappers."""
_OWN_FORMS = 2
_PREFIX = re.compile(r"^\s*(?:(?:sbatch|salloc|srun): )?(?:(?:error|fatal): )?")
_UNSURE = re.compile(
    r"timed? ?out|zero bytes|unexpected message|connection (?:reset|aborted)|transport endpoint",
    re.IGNORECASE,
)
"""Errors of sbatch after which the controller may have created the job nevertheless."""
_KEYS = (
    ("partition", re.compile(r"invalid partition|no partition|partition name", re.IGNORECASE)),
    ("account", re.compile(r"invalid account", re.IGNORECASE)),
    ("qos", re.compile(r"invalid qos", re.IGNORECASE)),
    ("time_limit_min", re.compile(r"time limit is invalid", re.IGNORECASE)),
)
"""Keys of ``[slurm]``, and sbatch's errors about them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Submitted:
    """A submitted job."""

    job: str
    """Job ID."""
    cluster: str
    """Cluster of the job; empty is the login node's own."""
    answer: str
    """Output of sbatch."""
    sure: bool
    """True if the answer has one of sbatch's own forms."""


class RefusedError(AllocationError):
    """Raised when Slurm refused the job, so that there is no job to cancel."""


def parse_answer(text: str) -> Submitted | None:
    """Parse the output of sbatch, or of a site's wrapper; None if the job ID is not clear.

    It is not clear if the most reliable form in the output matches two jobs.
    """
    for number, form in enumerate(_ANSWERS):
        clusters: dict[str, str] = {}
        for each in form.finditer(text):
            clusters[each["job"]] = clusters.get(each["job"]) or each["cluster"] or ""
        if clusters:
            (job, cluster), *others = clusters.items()
            sure = number < _OWN_FORMS
            return None if others else Submitted(job=job, cluster=cluster, answer=text, sure=sure)
    return None


def refusal_text(errors: str, source: str) -> str:
    """Return the message for a submission that failed.

    :param errors: standard error of sbatch.
    :param source: the system file.
    """
    keys = [key for key, pattern in _KEYS if pattern.search(errors)]
    where = f"[slurm] {keys[0]}" if len(keys) == 1 else "[slurm]"
    return f"sbatch took no job: {error_line(errors)}; see {where} in {source}"


def error_line(errors: str) -> str:
    """Return the errors of a Slurm command as one line, without the command's name."""
    lines = [_PREFIX.sub("", line).strip() for line in errors.splitlines()]
    return "; ".join(dict.fromkeys(filter(None, lines)))


def is_refusal(errors: str, output: str = "") -> bool:
    """Return whether it is certain that there is no job; after a time-out there may be one.

    :param errors: standard error of sbatch.
    :param output: standard output of sbatch, or of a wrapper that failed later.
    """
    return not _UNSURE.search(errors) and parse_answer(output) is None


def submit(
    config: HolderConfig,
    *,
    folder: Path,
    parameters: Mapping[str, Any],
    source: str,
    meanwhile: Callable[[], None],
) -> Submitted:
    """Submit the holder's job.

    :param folder: for submitit's files and the job's logs.
    :param parameters: of submitit's ``SlurmExecutor``.
    :param source: the system file.
    :param meanwhile: called every second while sbatch does not answer.
    :raises RefusedError: if Slurm refused the job.
    :raises AllocationError: if there may be a job whose ID is unknown.
    """
    import submitit

    answers: list[str] = []
    with signals_held(), _cleaned_environment(), contextlib.redirect_stderr(io.StringIO()):
        # submitit prints sbatch's errors, which the exception has too.
        try:
            executor = _executor(folder, answers)
            executor.update_parameters(**parameters)
            _run_in_thread(lambda: executor.submit(hold, config), meanwhile)
        except submitit.core.utils.FailedJobError as error:
            raise _failure(error, source) from error
        except OSError as error:
            raise AllocationError(f"the job cannot be submitted: {error}") from error
    answer = answers[0] if answers else ""
    submitted = parse_answer(answer)
    if submitted is None:
        raise AllocationError(
            f"sbatch printed no clear job ID: {answer!r}, expected 'Submitted batch job N' or N "
            "alone; the job is cancelled by its name; correct the site's wrapper of sbatch"
        )
    return submitted


def _executor(folder: Path, answers: list[str]) -> SlurmExecutor:
    """Return an executor that appends sbatch's answer to *answers* and accepts more forms of it."""
    import submitit

    class Executor(submitit.SlurmExecutor):
        # The hook by which submitit's executors read an answer (submitit 1.5, docs/plugins.md).
        @staticmethod
        def _get_job_id_from_submission_command(string: bytes | str) -> str:
            text = string.decode(errors="replace") if isinstance(string, bytes) else string
            answers.append(text)
            submitted = parse_answer(text)
            return submitted.job if submitted is not None else "unknown"

    return Executor(folder=folder)


def _run_in_thread(call: Callable[[], object], meanwhile: Callable[[], None]) -> None:
    """Call *call* in a thread and *meanwhile* every second, since sbatch may retry for minutes."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        future = pool.submit(call)
        while wait([future], timeout=_SLICE_S).not_done:
            meanwhile()
        future.result()


def _failure(error: BaseException, source: str) -> AllocationError:
    """Return the exception for a failed sbatch; submitit's error has its standard error."""
    cause, errors, output = error.__cause__, str(error).strip(), ""
    if isinstance(cause, CalledProcessError):
        output = str(cause.output or "").strip()
        errors = errors or output or f"it ended with exit code {cause.returncode}"
    killed = isinstance(cause, CalledProcessError) and cause.returncode < 0
    sure = is_refusal(errors, output) and not killed
    kind = RefusedError if sure else AllocationError
    return kind(refusal_text(errors, source))


@contextlib.contextmanager
def _cleaned_environment() -> Iterator[None]:
    """Remove secrets, and variables that change sbatch, from the environment during the block."""
    kept = job_environment(os.environ, environment_redactor())
    hidden = {name: value for name, value in os.environ.items() if name not in kept}
    for name in hidden:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(hidden)
