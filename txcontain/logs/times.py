"""Times as people write them: RFC 3339, and durations such as 10m."""

from __future__ import annotations

import re
import time
from datetime import datetime

from txcontain.container.document import shown
from txcontain.errors import InvalidData

SECOND = 10**9  # nanoseconds
LAST_SECOND = 253402300799  # 9999-12-31T23:59:59Z
UNITS = {"s": SECOND, "m": 60 * SECOND, "h": 3600 * SECOND, "d": 86400 * SECOND}
DURATION = re.compile("(?:[0-9]{1,9}[smhd])+")
# RFC 3339, 5.6. In a query that is not quoted, "+" has become a space.
MOMENT = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt ]([0-9:]{8})(?:\.([0-9]{1,9})[0-9]*)?"
    r"(?:[Zz]|([+ -][0-9:]{5}))"
)


def timestamp(nanoseconds: int) -> str:
    """A time in RFC 3339's form, in UTC."""
    seconds, fraction = divmod(nanoseconds, SECOND)
    whole = time.gmtime(min(seconds, LAST_SECOND))
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', whole)}.{fraction:09}Z"


def read_moment(name: str, text: str, now: int | None = None) -> int:
    """Nanoseconds since 1970 of a text: a moment (RFC 3339), or a duration before now.

    Raises InvalidData.
    """
    if DURATION.fullmatch(text):
        parts = re.findall("([0-9]+)([smhd])", text)
        now = time.time_ns() if now is None else now
        return max(0, now - sum(int(number) * UNITS[unit] for number, unit in parts))
    match = MOMENT.fullmatch(text)
    try:
        if match is None:
            raise ValueError
        day, clock, fraction, zone = match.groups()
        zone = (zone or "+00:00").replace(" ", "+")
        whole = int(datetime.fromisoformat(f"{day}T{clock}{zone}").timestamp())
    except (ValueError, OverflowError):
        raise InvalidData(
            f"{name} must be a time such as 2026-01-31T12:00:00Z, or a duration such as 90s, 10m "
            f"or 2h, not {shown(text)}"
        ) from None
    return max(0, whole * SECOND + int((fraction or "0").ljust(9, "0")))
