"""Findings: what sanity says of one run."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_pdserve.values.record import Finding


def invalid(check: str, message: str) -> Finding:
    """A finding that makes the run worthless."""
    return Finding(check=check, severity="invalid", message=message)


def unproven(check: str, message: str, *, voids: Sequence[str] = ()) -> Finding:
    """A finding that says what could not be looked at.

    :param voids: metrics that must not be judged because of it.
    """
    return Finding(check=check, severity="unproven", message=message, voids=tuple(voids))


def note(check: str, message: str, *, voids: Sequence[str] = ()) -> Finding:
    """A finding that is_note.

    :param voids: metrics that must not be judged because of it.
    """
    return Finding(check=check, severity="note", message=message, voids=tuple(voids))
