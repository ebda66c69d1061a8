"""Findings of sanity checks about one run."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_pdserve.values.record import Finding


def invalid(check: str, message: str) -> Finding:
    """Return a finding that makes the run invalid."""
    return Finding(check=check, severity="invalid", message=message)


def unproven(check: str, message: str, *, voids: Sequence[str] = ()) -> Finding:
    """Return a finding about something that could not be checked.

    :param voids: metrics that it makes unfit to be judged.
    """
    return Finding(check=check, severity="unproven", message=message, voids=tuple(voids))


def note(check: str, message: str, *, voids: Sequence[str] = ()) -> Finding:
    """Return a finding that is only a note.

    :param voids: metrics that it makes unfit to be judged.
    """
    return Finding(check=check, severity="note", message=message, voids=tuple(voids))
