"""Times of day by cron's five fields: minute, hour, day of month, month, day of week (crontab(5)).

They are the host's local times. A time that a change to summer time skips comes an hour later; one
that comes twice is taken once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime, timedelta

from attrs import frozen

from txcontain.container.document import refuse, shown
from txcontain.container.keys import Key, printable

FIELDS = (("minute", 0, 59), ("hour", 0, 23), ("day of month", 1, 31), ("month", 1, 12))
DAYS = ("day of week", 0, 7)  # 0 and 7 are Sunday
NAMES = {
    "month": "jan feb mar apr may jun jul aug sep oct nov dec".split(),
    "day of week": "sun mon tue wed thu fri sat".split(),
}
MACROS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
}
PART = re.compile(r"(?:(\*)|([0-9]{1,2}|[a-z]{3})(?:-([0-9]{1,2}|[a-z]{3}))?)(?:/([0-9]{1,2}))?")
LONGEST = 200  # characters
FARTHEST = 8 * 366 + 1  # days from a 29th of February to the next, around the year 2100
# Before now: in the first of these spans that has a time, the last one is looked for.
SPANS = tuple(timedelta(hours=hours).total_seconds() for hours in (1, 24, 24 * 32, 24 * 366))


@frozen
class Schedule:
    """When something is to be done. Times are unix times."""

    text: str
    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]  # 0: Sunday
    either: bool  # whether one of days and weekdays is enough: when both are restricted

    def next(self, after: float) -> float | None:
        """The first time after this one; None if there is none, as on a 30th of February."""
        begin = datetime.fromtimestamp(after).replace(second=0, microsecond=0)
        for day in range(FARTHEST):
            date = begin.replace(hour=0, minute=0) + timedelta(days=day)
            if self._is_on(date):
                for time in self._times(date):
                    if (at := time.timestamp()) > after:
                        return at
        return None

    def last(self, after: float, until: float) -> float | None:
        """The last time after the one and not after the other; None if there is none."""
        for start in (*(until - span for span in SPANS), after):
            found = self.next(max(start, after))
            if found is not None and found <= until:
                while (later := self.next(found)) is not None and later <= until:
                    found = later
                return found
        return None

    def _is_on(self, date: datetime) -> bool:
        day, weekday = date.day in self.days, date.isoweekday() % 7 in self.weekdays
        wanted = day or weekday if self.either else day and weekday
        return wanted and date.month in self.months

    def _times(self, date: datetime) -> Iterator[datetime]:
        for hour in sorted(self.hours):
            for minute in sorted(self.minutes):
                yield date.replace(hour=hour, minute=minute)


def read_schedule(key: str, value: object) -> Schedule:
    """Read a schedule. Raises InvalidData."""
    text = printable(key, value)
    fields = MACROS.get(text, text).lower().split()
    if len(fields) != 5 or len(text) > LONGEST:
        refuse(
            f"{key} must be the five fields of cron, minute hour day-of-month month day-of-week, "
            f"as in '15 3 * * *', not {shown(text)}"
        )
    rows = zip((*FIELDS, DAYS), fields, strict=True)
    minutes, hours, days, months, weekdays = (_field(key, row, field) for row, field in rows)
    # "If both fields are restricted (do not begin with *), either is enough" (crontab(5)).
    either = not any(field.startswith("*") for field in (fields[2], fields[4]))
    weekdays = frozenset(day % 7 for day in weekdays)
    schedule = Schedule(text, minutes, hours, days, months, weekdays, either)
    if schedule.next(0) is None:
        refuse(f"{key} {shown(text)} never comes: no such month has such a day")
    return schedule


def _field(key: str, row: tuple[str, int, int], text: str) -> frozenset[int]:
    return frozenset(number for part in text.split(",") for number in _part(key, row, part))


def _part(key: str, row: tuple[str, int, int], text: str) -> range:
    what, least, most = row
    match = PART.fullmatch(text)
    if match:
        star, first, last, step = match.groups()
        begin = least if star else _number(what, first)
        end = most if star or (step and not last) else _number(what, last or first)
        if least <= begin <= end <= most and step != "0":
            return range(begin, end + 1, int(step or 1))
    refuse(
        f"the {what} of {key} must be '*', a number from {least} to {most}, a range as 1-5, or a "
        f"list of these, each with a step as '*/10' or without, not {shown(text)}"
    )


def _number(what: str, text: str) -> int:
    names = NAMES.get(what, [])
    if text in names:
        return names.index(text) + (what == "month")
    return int(text) if text.isdecimal() else -1


SCHEDULE = Key(
    "when to run it: cron's five fields, in the host's local time, or @hourly, @daily, @weekly, "
    "@monthly, @yearly",
    {"type": "string", "maxLength": LONGEST},
    read_schedule,
)
