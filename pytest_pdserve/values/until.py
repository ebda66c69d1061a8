"""Parse the time at which a session must end."""

from __future__ import annotations

import re
from datetime import UTC
from datetime import datetime
from datetime import timedelta
from datetime import tzinfo

from pytest_pdserve.values.errors import ConfigError

_CLOCK = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])")
_DAYS = 3
"""Days that are searched for the next such time."""


def parse_until(text: str, now: datetime, *, zone: tzinfo | None = None) -> datetime:
    """Return the time *text* in UTC.

    ``06:00`` is the next time at which clocks show it. A time that is skipped when summer time
    begins is shifted by the skipped hour; of a time that occurs twice, it is the first one in the
    future.

    :param text: ``HH:MM``, or a time with an offset from UTC, such as
        ``2026-11-29T06:00:00+01:00``.
    :param now: present time, with a time zone.
    :param zone: time zone of ``HH:MM``; None for that of this machine.
    :raises ConfigError: if it is malformed, or in the past.
    """
    if match := _CLOCK.fullmatch(text):
        return _next(int(match[1]), int(match[2]), now, zone)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise ConfigError(
            f"until {text!r:.80}: expected a local time such as 06:00, or a time with its offset "
            "from UTC such as 2026-11-29T06:00:00+01:00"
        )
    if moment <= now:
        raise ConfigError(f"until {text!r:.80}: expected a time in the future")
    return moment.astimezone(UTC)


def _next(hour: int, minute: int, now: datetime, zone: tzinfo | None) -> datetime:
    today = now.astimezone(zone).replace(tzinfo=None, fold=0)
    for day in range(_DAYS):
        wall = (today + timedelta(days=day)).replace(
            hour=hour, minute=minute, second=0, microsecond=0
        )
        for moment in _moments(wall, zone):
            if moment > now:
                return moment
    raise AssertionError("every time comes within two days")


def _moments(wall: datetime, zone: tzinfo | None) -> list[datetime]:
    """Return the times at which clocks show *wall*; one for a time that is skipped."""
    # Without a zone, astimezone assumes the time zone of this machine.
    both = [wall.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1)]
    shown = [each for each in both if each.astimezone(zone).replace(tzinfo=None, fold=0) == wall]
    return sorted(set(shown)) or both[:1]
