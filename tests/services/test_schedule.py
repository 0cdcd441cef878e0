"""Schedules: which times they mean."""

import os
import time
from datetime import datetime

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from txcontain.errors import InvalidData
from txcontain.services.schedule import read_schedule

START = "2026-01-30 12:00"  # a Friday
NEXT = (
    ("* * * * *", "2026-01-30 12:01"),
    ("15 3 * * *", "2026-01-31 03:15"),
    ("*/20 * * * *", "2026-01-30 12:20"),
    ("5/20 * * * *", "2026-01-30 12:05"),
    ("10-12,40 * * * *", "2026-01-30 12:10"),
    ("0 12 * * *", "2026-01-31 12:00"),
    ("0 0 29 2 *", "2028-02-29 00:00"),
    ("0 0 * * sun", "2026-02-01 00:00"),
    ("0 0 * * 7", "2026-02-01 00:00"),
    ("0 0 * * mon-wed", "2026-02-02 00:00"),
    ("0 0 1 mar *", "2026-03-01 00:00"),
    ("0 0 31 * mon", "2026-01-31 00:00"),  # either is enough
    ("0 0 */2 * mon", "2026-02-09 00:00"),  # both, as the first begins with *
    ("@hourly", "2026-01-30 13:00"),
    ("@yearly", "2027-01-01 00:00"),
)
REFUSED = (
    *("", "* * * *", "* * * * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * * 13 *"),
    *("* * * * 8", "a * * * *", "5-1 * * * *", "*/0 * * * *", "-1 * * * *", "1,, * * * *"),
    *("* * * foo *", "@reboot", "0 0 30 2 *", "0 0 31 4,6 *", "1-2-3 * * * *"),
)


def unix(text: str) -> float:
    """The unix time of a local time."""
    return datetime.fromisoformat(text).timestamp()


class Schedules(SynchronousTestCase):
    """Five fields, as times."""

    def be_in(self, zone: str) -> None:
        """Have the local time be that of a zone."""
        before = os.environ.get("TZ")

        def be_back() -> None:
            os.environ.pop("TZ")
            if before is not None:
                os.environ["TZ"] = before
            time.tzset()

        self.addCleanup(be_back)
        os.environ["TZ"] = zone
        time.tzset()

    def test_next(self) -> None:
        """Each schedule has its next time."""
        for text, wanted in NEXT:
            found = read_schedule("schedule", text).next(unix(START))
            self.assertEqual(found, unix(wanted), text)

    def test_refused(self) -> None:
        """What is no schedule, or never comes, is refused."""
        for text in REFUSED:
            self.assertRaises(InvalidData, read_schedule, "schedule", text)

    def test_summer_time(self) -> None:
        """A time that is skipped comes an hour later, and one that comes twice is taken once."""
        self.be_in("CET-1CEST,M3.5.0,M10.5.0/3")
        schedule = read_schedule("schedule", "30 2 * * *")
        found = schedule.next(unix("2026-03-29 00:00"))
        assert found is not None
        self.assertEqual(time.localtime(found)[3:5], (3, 30))
        first = schedule.next(unix("2026-10-25 00:00"))
        assert first is not None
        self.assertEqual(schedule.next(first), unix("2026-10-26 02:30"))

    def test_last(self) -> None:
        """The last time before now is found, however long ago that is."""
        for text, until, wanted in (
            ("* * * * *", "2026-01-30 12:00", "2026-01-30 12:00"),
            ("15 3 * * *", "2026-01-30 12:00", "2026-01-30 03:15"),
            ("0 0 1 * *", "2026-01-30 12:00", "2026-01-01 00:00"),
            ("0 0 29 2 *", "2026-01-30 12:00", "2024-02-29 00:00"),
            ("0 0 1 1 *", "2020-02-01 00:00", "2020-01-01 00:00"),
        ):
            found = read_schedule("schedule", text).last(unix("2019-06-01 00:00"), unix(until))
            self.assertEqual(found, unix(wanted), text)
        schedule = read_schedule("schedule", "0 0 29 2 *")
        self.assertIsNone(schedule.last(unix("2024-03-01 00:00"), unix(START)))

    @given(st.integers(0, 1 << 31), st.integers(0, 10**7), st.sampled_from(NEXT))
    def test_agree(self, begin: int, span: int, row: tuple[str, str]) -> None:
        """The last time is one that comes next, and none comes between it and now."""
        schedule = read_schedule("schedule", row[0])
        first, last = schedule.next(begin), schedule.last(begin, begin + span)
        assert first is not None
        if last is None:
            self.assertGreater(first, begin + span)
            return
        after = schedule.next(last)
        assert after is not None
        self.assertTrue(first <= last <= begin + span < after)
