"""Types of texts in stored files: line, word, day and time."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from msgspec import Meta

_PRINTABLE = r"[^\u0000-\u001f\u007f-\u009f\u2028\u2029\ud800-\udfff]"
Line = Annotated[str, Meta(pattern=rf"^{_PRINTABLE}*(?![\s\S])")]
"""One line of printable characters."""
Word = Annotated[str, Meta(pattern=rf"^{_PRINTABLE}*(?![\s\S])", min_length=1)]
"""One non-empty line of printable characters."""
Day = Annotated[str, Meta(pattern=r"^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])(?![\s\S])")]
"""Date, ISO 8601."""
MOMENT_FORMAT = "utc"
"""JSON schema's ``format`` of :data:`Utc`."""
Utc = Annotated[
    str,
    Meta(
        pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?Z(?![\s\S])",
        extra_json_schema={"format": MOMENT_FORMAT},
    ),
]
"""Time in UTC, ISO 8601."""


def is_moment(text: object) -> bool:
    """Return whether *text* is an existing time; True for other types, as JSON schema's formats."""
    if not isinstance(text, str):
        return True
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True
