"""Handing a job to Slurm through submitit, and reading what sbatch answers.

The only importer of submitit.
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
"""Forms of an answer, the surest first: sbatch's own two, then what a wrapper may make of them."""
_OWN_FORMS = 2
_PREFIX = re.compile(r"^\s*(?:(?:sbatch|salloc|srun): )?(?:(?:error|fatal): )?")
_UNSURE = re.compile(
    r"timed? ?out|zero bytes|unexpected message|connection (?:reset|aborted)|transport endpoint",
    re.IGNORECASE,
)
"""What sbatch says where the controller may have made the job all the same."""
_KEYS = (
    ("partition", re.compile(r"invalid partition|no partition|partition name", re.IGNORECASE)),
    ("account", re.compile(r"invalid account", re.IGNORECASE)),
    ("qos", re.compile(r"invalid qos", re.IGNORECASE)),
    ("time_limit_min", re.compile(r"time limit is invalid", re.IGNORECASE)),
)
"""Keys of ``[slurm]`` by what sbatch says of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Submitted:
    """A job that Slurm took."""

    job: str
    """Its number."""
    cluster: str
    """The cluster that it is on; empty if that is the login node's own."""
    answer: str
    """What sbatch printed."""
    sure: bool
    """Whether that is of a form that sbatch itself has."""


class RefusedError(AllocationError):
    """Raised when sbatch was refused, so that there is no job."""


def parse_answer(text: str) -> Submitted | None:
    """Read what sbatch, or a site's wrapper of it, printed; None if no job can be told from it.

    An answer that names two jobs in its surest form is no answer.
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


def refusal_text(said: str, source: str) -> str:
    """Return the sentence of a submission that failed.

    :param said: what sbatch printed.
    :param source: the system file.
    """
    keys = [key for key, pattern in _KEYS if pattern.search(said)]
    where = f"[slurm] {keys[0]}" if len(keys) == 1 else "[slurm]"
    return f"sbatch took no job: {complaint_of(said)}; see {where} in {source}"


def complaint_of(said: str) -> str:
    """Return what a command of Slurm complained of, as one line without the command's name."""
    lines = [_PREFIX.sub("", line).strip() for line in said.splitlines()]
    return "; ".join(dict.fromkeys(filter(None, lines)))


def is_refusal(said: str, printed: str = "") -> bool:
    """Whether sbatch knows that there is no job; after a time-out there may be one.

    :param said: what it complained of.
    :param printed: what it, or a wrapper that failed later, printed before.
    """
    return not _UNSURE.search(said) and parse_answer(printed) is None


def submit(
    config: HolderConfig,
    *,
    folder: Path,
    parameters: Mapping[str, Any],
    source: str,
    meanwhile: Callable[[], None],
) -> Submitted:
    """Submit the holder's job.

    :param folder: where submitit keeps what it hands over, and the job's logs.
    :param parameters: of submitit's ``SlurmExecutor``.
    :param source: the system file.
    :param meanwhile: called every second while sbatch does not answer.
    :raises RefusedError: if sbatch was refused.
    :raises AllocationError: if there may be a job whose number is not known.
    """
    import submitit

    answers: list[str] = []
    with signals_held(), _cleaned_environment(), contextlib.redirect_stderr(io.StringIO()):
        # submitit prints what sbatch complains of, which the error says.
        try:
            executor = _executor(folder, answers)
            executor.update_parameters(**parameters)
            _patiently(lambda: executor.submit(hold, config), meanwhile)
        except submitit.core.utils.FailedJobError as error:
            raise _failure(error, source) from error
        except OSError as error:
            raise AllocationError(f"the job cannot be submitted: {error}") from error
    answer = answers[0] if answers else ""
    submitted = parse_answer(answer)
    if submitted is None:
        raise AllocationError(
            f"sbatch printed no job number that can be told from its other words: {answer!r}; its "
            "job is cancelled by its name; have sbatch print 'Submitted batch job N', or N alone"
        )
    return submitted


def _executor(folder: Path, answers: list[str]) -> SlurmExecutor:
    """Return an executor that keeps sbatch's answer and takes more forms of it than submitit's."""
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


def _patiently(call: Callable[[], object], meanwhile: Callable[[], None]) -> None:
    """Call in another thread, since sbatch may retry for minutes."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        future = pool.submit(call)
        while wait([future], timeout=_SLICE_S).not_done:
            meanwhile()
        future.result()


def _failure(error: BaseException, source: str) -> AllocationError:
    """Return what to raise for an sbatch that failed; submitit's error has its standard error."""
    cause, said, printed = error.__cause__, str(error).strip(), ""
    if isinstance(cause, CalledProcessError):
        printed = str(cause.output or "").strip()
        said = said or printed or f"it ended with exit code {cause.returncode}"
    killed = isinstance(cause, CalledProcessError) and cause.returncode < 0
    sure = is_refusal(said, printed) and not killed
    kind = RefusedError if sure else AllocationError
    return kind(refusal_text(said, source))


@contextlib.contextmanager
def _cleaned_environment() -> Iterator[None]:
    """Hide from sbatch what the caller's shell would have it do, and secrets."""
    kept = job_environment(os.environ, environment_redactor())
    hidden = {name: value for name, value in os.environ.items() if name not in kept}
    for name in hidden:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(hidden)
