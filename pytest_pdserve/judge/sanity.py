"""Sanity: whether a run is valid. Only a valid run is judged."""

from __future__ import annotations

import functools
from collections.abc import Callable
from collections.abc import Iterable

from pytest_pdserve.judge import client_checks as client
from pytest_pdserve.judge import server_checks as servers
from pytest_pdserve.judge.answers_under_load import check_answers_under_load
from pytest_pdserve.judge.client_lateness import check_client_lateness
from pytest_pdserve.judge.client_offset import check_client_offset
from pytest_pdserve.judge.fabric_checks import check_fabric
from pytest_pdserve.judge.figure_checks import check_figures
from pytest_pdserve.judge.gpu_checks import check_gpus
from pytest_pdserve.judge.running_transfer import check_transfer_speed
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.extensions import CHECKS_GROUP
from pytest_pdserve.values.extensions import load_extensions
from pytest_pdserve.values.observation import Observation
from pytest_pdserve.values.record import Finding

Check = Callable[[Observation], Iterable[Finding]]
"""A check: yields findings about one run; none if it is sound."""

CHECKS: tuple[Check, ...] = (
    client.check_completed,
    client.check_answers,
    check_answers_under_load,
    client.check_tokens,
    check_figures,
    client.check_zeros,
    client.check_chunks,
    servers.check_served,
    servers.check_foreign_requests,
    servers.check_preemptions,
    servers.check_transfers,
    check_transfer_speed,
    servers.check_prefilled_again,
    servers.check_bytes,
    servers.check_prefix_cache,
    servers.check_router,
    servers.check_stalls,
    client.check_client,
    check_client_lateness,
    check_client_offset,
    client.check_offered,
    client.check_client_node,
    check_gpus,
    check_fabric,
)
"""This package's checks, the most important first."""


def check_sanity(run: Observation) -> tuple[Finding, ...]:
    """Apply every check to one run, the most important first.

    For a run without any completed request only that is reported: the rest follows from it.
    """
    applied = (client.check_completed,) if run.result.completed == 0 else checks()
    return tuple(finding for check in applied for finding in check(run))


@functools.cache
def checks() -> tuple[Check, ...]:
    """Return all checks: this package's, then those of entry points.

    :raises ConfigError: if an entry point cannot be loaded, or is not callable.
    """
    added = load_extensions(CHECKS_GROUP)
    for name, check in added.items():
        if not callable(check):
            raise ConfigError(
                f"entry point {name!r} of group {CHECKS_GROUP!r} is a {type(check).__name__}, "
                "expected a function that takes an Observation and yields Findings"
            )
    return (*CHECKS, *added.values())
