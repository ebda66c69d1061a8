"""Exclusions of sessions from a history, each with a reason; entries are never changed."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from datetime import UTC
from datetime import datetime
from pathlib import Path

from pytest_pdserve.results.files import load_json
from pytest_pdserve.results.files import write_json
from pytest_pdserve.results.kinds import EXCLUSION
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.exclusion import Exclusion
from pytest_pdserve.values.sessions import utc_text

EXCLUSIONS = "exclusions"
"""Folder of the entries, one file each."""


def add_exclusion(
    folder: Path,
    key: tuple[str, str],
    reason: str,
    *,
    excluded: bool = True,
    now: datetime | None = None,
) -> Path:
    """Write an entry and return its file; earlier entries stay unchanged.

    :param key: system and session id.
    :param excluded: False ends an earlier exclusion.
    :param now: time of the entry; None for the current time.
    :raises ConfigError: if *reason* is empty or not one line.
    :raises StoreError: if the disk does not take it.
    """
    if not reason.strip():
        raise ConfigError("--reason is empty; expected why the session is excluded")
    moment = now or datetime.now(UTC)
    system, session = key
    entry = Exclusion(
        system=system,
        session=session,
        excluded=excluded,
        reason=reason.strip(),
        at=utc_text(moment),
    )
    name = f"{moment.strftime('%Y%m%dT%H%M%S%f')}-{secrets.token_hex(4)}.json"
    path = folder / EXCLUSIONS / name
    write_json(path, EXCLUSION.dump(entry, "--reason"))
    return path


def read_exclusions(folder: Path) -> tuple[dict[tuple[str, str], Exclusion], list[str]]:
    """Return the newest entry of each session, and a sentence on each file that cannot be read."""
    newest: dict[tuple[str, str], Exclusion] = {}
    unreadable: list[str] = []
    for path in sorted((folder / EXCLUSIONS).glob("*.json")):  # their names begin with the time
        try:
            entry = EXCLUSION.parse(load_json(path), path)
        except ConfigError as error:
            unreadable.append(str(error))
        else:
            newest[entry.key] = entry
    return newest, unreadable


def reasons_of(entries: Mapping[tuple[str, str], Exclusion]) -> dict[tuple[str, str], str]:
    """Return the reason of each session that is excluded."""
    return {key: entry.reason for key, entry in entries.items() if entry.excluded}
