"""What sbatch and wrappers of it answer, and what a refusal says."""

from __future__ import annotations

import pytest

from pytest_pdserve.backends.slurm.submitting import is_refusal
from pytest_pdserve.backends.slurm.submitting import parse_answer
from pytest_pdserve.backends.slurm.submitting import refusal_text
from tests.support import slurm_data

SOURCE = "far/system.toml"
FORMS = slurm_data.text("sbatch_accepted_forms").splitlines()
REFUSED = slurm_data.text("sbatch_refused").splitlines()


@pytest.mark.parametrize(
    ("answer", "job", "cluster"),
    [
        *zip(FORMS, ["12345"] * 4, ["", "c2", "", "cluster2"], strict=True),
        (slurm_data.text("sbatch_wrapper_text_around"), "1131510", ""),
        (slurm_data.text("sbatch_wrong_partition_moved_to_default"), "10734140", ""),
        ("\n 4711 \n", "4711", ""),
        ("Your job 500 GB over quota\nSubmitted batch job 77 on cluster gpu\n", "77", "gpu"),
        ("Submitted batch job 77\nSubmitted batch job 77 on cluster gpu\n", "77", "gpu"),
        ("4 nodes of partition gpu asked for\n4711\n", "4711", ""),
    ],
)
def test_an_answer_of_sbatchs_own_is_sure(answer: str, job: str, cluster: str) -> None:
    read = parse_answer(answer)
    assert read is not None
    assert (read.job, read.cluster, read.sure) == (job, cluster, True)


@pytest.mark.parametrize(
    "answer",
    [
        "Job ID: 4711",
        "your job_id=4711 waits in gpu (priority 5)",
        "Submitted job 4711 to p5-03 at 2026-11-27 12:30:01",
        "Queued as #4711 in p5.",
        "sbatch: queued 4711.",
    ],
)
def test_an_answer_of_a_wrapper_is_read_but_not_sure(answer: str) -> None:
    read = parse_answer(answer)
    assert read is not None
    assert (read.job, read.sure) == ("4711", False)


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "ok",
        "Submitted batch job 1\nSubmitted batch job 2\n",
        "1\n2\n",
        "4 nodes, queue 12",
        "p5",
    ],
)
def test_an_answer_that_names_no_job_or_several_is_none(answer: str) -> None:
    assert parse_answer(answer) is None


@pytest.mark.parametrize(
    ("said", "complaint", "key"),
    [
        (
            "\n".join(REFUSED[:2]),
            "invalid partition specified: gpu-v100-32GB; Batch job submission failed: Invalid "
            "partition name specified",
            "[slurm] partition",
        ),
        (
            REFUSED[2],
            "Batch job submission failed: Invalid account or account/partition combination "
            "specified",
            "[slurm] account",
        ),
        (REFUSED[3], "Batch job submission failed: Invalid qos specification", "[slurm] qos"),
        (
            REFUSED[4],
            "Batch job submission failed: Requested time limit is invalid (missing or exceeds some "
            "limit)",
            "[slurm] time_limit_min",
        ),
        (
            REFUSED[5],
            "Batch job submission failed: No partition specified or system default partition",
            "[slurm] partition",
        ),
        (
            "\n".join(REFUSED[6:]),
            "QOSMaxSubmitJobPerUserLimit; Job submit/allocate failed: Job violates "
            "accounting/QOS policy (job submit limit, user's size and/or time limits)",
            "[slurm]",
        ),
        ("sbatch: unrecognized option '--foo'", "unrecognized option '--foo'", "[slurm]"),
        ("sbatch: fatal: Could not establish a configuration source",
         "Could not establish a configuration source", "[slurm]"),
        ("site policy: ask for a project first", "site policy: ask for a project first", "[slurm]"),
    ],
)  # fmt: skip
def test_a_refusal_is_one_sentence_that_names_the_key(said: str, complaint: str, key: str) -> None:
    assert refusal_text(said, SOURCE) == f"sbatch took no job: {complaint}; see {key} in {SOURCE}"
    assert is_refusal(said)


@pytest.mark.parametrize(
    ("said", "printed"),
    [
        ("sbatch: error: Batch job submission failed: Socket timed out on send/recv", ""),
        ("sbatch: error: Batch job submission failed: Zero Bytes were transmitted or received", ""),
        ("sbatch: error: Batch job submission failed: Unexpected message received", ""),
        ("wrapper: cannot write the log", "Submitted batch job 4711\n"),
    ],
)
def test_a_job_that_may_exist_is_no_refusal(said: str, printed: str) -> None:
    assert not is_refusal(said, printed)
