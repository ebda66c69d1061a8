"""Slurm's reasons in plain words, and whether waiting on can help."""

from __future__ import annotations

import re

import pytest

from pytest_pdserve.backends.slurm.reasons import NO_REASON
from pytest_pdserve.backends.slurm.reasons import Outlook
from pytest_pdserve.backends.slurm.reasons import explain
from tests.support import slurm_data

CLEARS, NEEDS_CHANGE, NEVER = Outlook.CLEARS, Outlook.NEEDS_CHANGE, Outlook.NEVER

WORDS = {
    "Priority": (CLEARS, "jobs of higher priority go first (Priority)"),
    "Resources": (CLEARS, "the nodes it asks for are not free yet (Resources)"),
    "BeginTime": (CLEARS, "its begin time has not come yet (BeginTime)"),
    "Dependency": (CLEARS, "a job that it depends on has not ended yet (Dependency)"),
    "QOSGrpCpuLimit": (
        CLEARS,
        "running jobs hold all the CPUs that its QOS allows in total (QOSGrpCpuLimit)",
    ),
    "QOSMaxGRESPerUser": (
        CLEARS,
        "running jobs of its user hold all the GPUs or other GRES that its QOS allows a user "
        "(QOSMaxGRESPerUser)",
    ),
    "QOSMaxJobsPerUserLimit": (
        CLEARS,
        "its user has as many running jobs as its QOS allows a user (QOSMaxJobsPerUserLimit)",
    ),
    "AssocGrpGRES": (
        CLEARS,
        "running jobs hold all the GPUs or other GRES that its association allows in total "
        "(AssocGrpGRES)",
    ),
    "AssocMaxJobsLimit": (
        CLEARS,
        "its user has as many running jobs as its association allows (AssocMaxJobsLimit)",
    ),
    "AssocGrpCPUMinutesLimit": (
        CLEARS,
        "past jobs used up the CPU minutes that its association allows in total "
        "(AssocGrpCPUMinutesLimit)",
    ),
    "QOSGrpWallLimit": (
        CLEARS,
        "past jobs used up the wall time that its QOS allows in total (QOSGrpWallLimit)",
    ),
    "QOSGrpCPURunMinutesLimit": (
        CLEARS,
        "running jobs hold all the CPU minutes that its QOS allows in total "
        "(QOSGrpCPURunMinutesLimit)",
    ),
    "MaxSubmitJobsPerAccount": (
        CLEARS,
        "its account has as many submitted jobs as its QOS allows an account "
        "(MaxSubmitJobsPerAccount)",
    ),
    "MaxNodeRunMinsPerUser": (
        CLEARS,
        "running jobs of its user hold all the node minutes that its QOS allows a user "
        "(MaxNodeRunMinsPerUser)",
    ),
    "PartitionDown": (NEEDS_CHANGE, "its partition is down (PartitionDown)"),
    "JobHeldUser": (NEEDS_CHANGE, "its user holds it (JobHeldUser)"),
    "InvalidAccount": (NEEDS_CHANGE, "its account is not valid (InvalidAccount)"),
    "QOSMaxNodePerJobLimit": (
        NEVER,
        "it asks for more nodes than its QOS allows a job (QOSMaxNodePerJobLimit)",
    ),
    "AssocMaxWallDurationPerJobLimit": (
        NEVER,
        "its time limit is longer than its association allows a job "
        "(AssocMaxWallDurationPerJobLimit)",
    ),
    "QOSMaxMemoryMinutesPerJob": (
        NEVER,
        "it asks for more memory minutes than its QOS allows a job (QOSMaxMemoryMinutesPerJob)",
    ),
    "AssocMaxCpuPerNode": (
        NEVER,
        "it asks for more CPUs per node than its association allows a job (AssocMaxCpuPerNode)",
    ),
    "QOSMinGRES": (
        NEVER,
        "it asks for less than the minimum of GPUs or other GRES that its QOS requires "
        "(QOSMinGRES)",
    ),
    "PartitionConfig": (
        NEVER,
        "its partition is not configured for what it asks for (PartitionConfig)",
    ),
    "DependencyNeverSatisfied": (
        NEVER,
        "a job that it depends on ended in a way that rules it out (DependencyNeverSatisfied)",
    ),
    "SomethingNew": (CLEARS, "Slurm's reason is 'SomethingNew'"),
}

TRES = ("Energy", "GRES", "BB", "Billing", "Unknown")
OF_A_JOB = [
    *("QOSMaxCpuPerJobLimit", "QOSMaxCpuMinutesPerJobLimit", "QOSMinCpuNotSatisfied"),
    *("QOSMaxWallDurationPerJobLimit", "QOSMaxCpuPerNode", "QOSMaxMemoryPerNode", "QOSMinMemory"),
    *("AssocMaxCpuPerJobLimit", "AssocMaxCpuMinutesPerJobLimit", "AssocMaxNodePerJobLimit"),
    *("AssocMaxCPUMinutesPerJobLimit", "AssocMaxMemPerJob", "AssocMaxMemMinutesPerJob"),
    *("AssocMaxLicensePerJob", "AssocMaxLicenseMinutesPerJob", "QOSMaxNodeMinutesPerJob"),
    *(f"{whose}Max{what}PerJob" for whose in ("QOS", "Assoc") for what in TRES),
    *(f"{whose}Max{what}PerNode" for whose in ("QOS", "Assoc") for what in TRES),
    *(f"{whose}Max{what}MinutesPerJob" for whose in ("QOS", "Assoc") for what in TRES),
    *(f"QOSMin{what}" for what in ("Node", "License", *TRES)),
]
"""Limits of Slurm 25.05 that a job by itself is outside of, beside those above."""
OF_ALL_JOBS = [
    *("QOSGrpJobsLimit", "QOSGrpMemLimit", "QOSGrpNodeLimit", "QOSGrpSubmitJobsLimit"),
    *("QOSMaxCpuPerUserLimit", "QOSMaxNodePerUserLimit", "QOSMaxSubmitJobPerUserLimit"),
    *("AssocGrpCpuLimit", "AssocGrpJobsLimit", "AssocGrpMemLimit", "AssocGrpNodeLimit"),
    *("AssocGrpSubmitJobsLimit", "AssocGrpWallLimit", "AssocMaxSubmitJobLimit"),
    *("QOSGrpCPUMinutesLimit", "AssocGrpCPURunMinutesLimit", "MaxJobsPerAccount"),
    *("QOSGrpMemoryMinutes", "AssocGrpMemRunMinutes", "MaxMemoryPerAccount", "QOSGrpLicense"),
    *(f"{whose}Grp{what}" for whose in ("QOS", "Assoc") for what in TRES),
    *(f"{whose}Grp{what}RunMinutes" for whose in ("QOS", "Assoc") for what in TRES),
    *(f"QOSMax{what}PerUser" for what in TRES),
    *(f"Max{what}PerAccount" for what in TRES),
    *(f"Max{what}RunMinsPerAccount" for what in TRES),
]
"""Limits that come free as other jobs end."""


@pytest.mark.parametrize("code", WORDS)
def test_a_reason_is_a_clause_with_slurms_word(code: str) -> None:
    reason = explain(code)
    assert (reason.outlook, reason.text) == WORDS[code]


@pytest.mark.parametrize("code", OF_A_JOB)
def test_a_limit_of_one_job_cannot_clear(code: str) -> None:
    reason = explain(code)
    assert (reason.outlook, reason.code) == (NEVER, code)


@pytest.mark.parametrize("code", OF_ALL_JOBS)
def test_a_limit_of_all_jobs_may_clear(code: str) -> None:
    reason = explain(code)
    assert (reason.outlook, reason.code) == (CLEARS, code)


@pytest.mark.parametrize("said", ["None", "", "  ", "(None)", "(null)", "N/A", "none"])
def test_none_is_no_reason(said: str) -> None:
    assert explain(said) is NO_REASON


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (
            "ReqNodeNotAvail, UnavailableNodes:node026",
            "nodes that it needs are not available now: node026 (ReqNodeNotAvail)",
        ),
        (
            "ReqNodeNotAvail, May be reserved for other job",
            "nodes that it needs are not available now: May be reserved for other job "
            "(ReqNodeNotAvail)",
        ),
        (
            "ReqNodeNotAvail, UnavailableNod",
            "nodes that it needs are not available now (ReqNodeNotAvail)",
        ),
        ("ReqNodeNotAvail", "nodes that it needs are not available now (ReqNodeNotAvail)"),
        (
            "ReqNodeNotAvail, Reserved for maintenance",
            "nodes that it needs are not available now: Reserved for maintenance (ReqNodeNotAvail)",
        ),
        (
            "Nodes required for job are DOWN",
            "nodes it needs are down, drained or reserved for jobs of higher priority (Resources)",
        ),
        (
            "launch failed requeued held",
            "it could not be launched, and Slurm holds it (launch failed requeued held)",
        ),
    ],
)
def test_a_text_in_a_reasons_place_is_read_whole_or_cut_off(said: str, words: str) -> None:
    assert explain(said).text == words


LISTED = {
    "squeue_launch_failed_requeued_held": [NEEDS_CHANGE],
    "squeue_nodes_down_or_reserved": [CLEARS, CLEARS, CLEARS],
    "squeue_qos_grp_cpu_limit": [CLEARS],
    "squeue_qos_max_gres_per_user_array": [CLEARS],
    "squeue_qos_max_jobs_and_node_not_available": [CLEARS, CLEARS],
    "squeue_several_clusters": [CLEARS, CLEARS],
}


@pytest.mark.parametrize("name", LISTED)
def test_every_reason_of_a_real_listing_is_known(name: str) -> None:
    said = re.findall(r"\s\((.+)\)$", slurm_data.text(name), re.MULTILINE)
    reasons = [explain(each) for each in said if each != "REASON"]
    assert [reason.outlook for reason in reasons] == LISTED[name]
    assert all(reason.code for reason in reasons)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("scontrol_job_begin_time", "its begin time has not come yet (BeginTime)"),
        ("scontrol_job_pending_after_16_restarts", "its begin time has not come yet (BeginTime)"),
        ("scontrol_job_configuring", "the nodes it asks for are not free yet (Resources)"),
        (
            "scontrol_job_node_not_available",
            "nodes that it needs are not available now: May be reserved for other job "
            "(ReqNodeNotAvail)",
        ),
        (
            "scontrol_one_line_assoc_grp_gres",
            "running jobs hold all the GPUs or other GRES that its association allows in total "
            "(AssocGrpGRES)",
        ),
    ],
)
def test_the_reason_of_a_real_job_is_in_plain_words(name: str, words: str) -> None:
    (said,) = re.findall(r"Reason=(.+?)(?: \w+=|$)", slurm_data.text(name), re.MULTILINE)
    assert explain(said).text == words
