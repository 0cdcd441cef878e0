"""Times as people write them."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.logs.case import LogTestCase
from txcontain.errors import InvalidData
from txcontain.logs.times import read_moment, timestamp


class MomentTests(LogTestCase):
    """Times, read and written."""

    def test_moments(self) -> None:
        """A moment or a duration is read, to the nanosecond."""
        now = 1_000_000 * 10**9
        for text, wanted in (
            ("1970-01-01T00:00:01Z", 10**9),
            ("1970-01-01t00:00:01.5z", 1_500_000_000),
            ("1970-01-01T01:00:00.000000001+01:00", 1),
            ("1970-01-01 01:00:00 01:00", 0),
            ("1969-01-01T00:00:00Z", 0),
            ("90s", now - 90 * 10**9),
            ("1h30m", now - 5400 * 10**9),
            ("9999d", 0),
        ):
            self.assertEqual(read_moment("since", text, now), wanted, text)

    def test_none(self) -> None:
        """Anything else is refused, with examples of a time."""
        for text in (
            "",
            "10",
            "m",
            "1970-01-01",
            "1970-01-01T00:00:00",
            "1970-02-30T00:00:00Z",
            "1970-01-01T25:00:00Z",
            "yesterday",
            "-1s",
            "1e9s",
            "\u0661s",
            "1970-01-01T00:00:00+99:99",
        ):
            error = self.assertRaises(InvalidData, read_moment, "since", text, 0)
            self.assertIn("since must be a time such as", str(error))

    @given(st.integers(0, 1 << 62))
    def test_there_and_back(self, moment: Any) -> None:
        """A time that was written is read as the same time."""
        self.assertEqual(read_moment("since", timestamp(moment), 0), moment)
