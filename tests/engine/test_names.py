"""Which instances a person means."""

import contextlib

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.fakes import ManagerTestCase
from txcontain.engine.names import MOST_COMPARED, Known, match, match_all
from txcontain.errors import Ambiguous, NoSuchInstance

KNOWN = {
    "web-1a": Known(("web", "1", "01")),
    "web-2b": Known(("web", "1", "2")),
    "web-2b-x": Known(("web", "2", "0")),
    "web-app-3c": Known(("web-app", "1", "01")),
    "db-4d": Known(("db", "1", "01"), {"stack": "shop", "service": "app"}),
    "db-5e": Known(("db", "1", "02"), {"stack": "test", "service": "app"}),
}


class NamesTests(SynchronousTestCase):
    """Names, without a manager."""

    def test_one(self) -> None:
        """A whole name wins over names that it begins; else a beginning must be unique."""
        means = {"web-1a": "web-1a", "web-2b": "web-2b", "db-4": "db-4d", "web-a": "web-app-3c"}
        self.assertEqual({wanted: match(wanted, KNOWN) for wanted in means}, means)

    def test_config(self) -> None:
        """``config:`` stands for all instances of a config, whole parts of its name at a time."""
        means = {
            "config:web": ["web-1a", "web-2b", "web-2b-x"],
            "config:web-1": ["web-1a", "web-2b"],
            "config:web-1-2": ["web-2b"],
            "config:web-app": ["web-app-3c"],
        }
        self.assertEqual({wanted: match_all(wanted, KNOWN) for wanted in means}, means)
        self.assertEqual(match("config:db-1-01", KNOWN), "db-4d")

    def test_service(self) -> None:
        """``service:`` stands for all instances of a service, of one stack or of all."""
        means = {"service:app": ["db-4d", "db-5e"], "service:shop-app": ["db-4d"]}
        self.assertEqual({wanted: match_all(wanted, KNOWN) for wanted in means}, means)
        for wanted in ("service:", "service:db", "service:shop", "service:None-None"):
            self.assertRaises(NoSuchInstance, match_all, wanted, KNOWN)

    def test_none(self) -> None:
        """What fits nothing is refused, with the name that was probably meant."""
        for wanted, meant in (("wbe", "web"), ("config:dbb", "db"), ("db-4x", "db-4d")):
            error = self.assertRaises(NoSuchInstance, match_all, wanted, KNOWN)
            self.assertEqual(error.chain[1:], (f"did you mean {meant}?",))
        for wanted in ("", "config:", "config:we", "WEB", "zzz"):
            self.assertRaises(NoSuchInstance, match_all, wanted, KNOWN)

    def test_several(self) -> None:
        """Several that begin so are refused, and so are a config's where one is asked for."""
        error = self.assertRaises(Ambiguous, match_all, "web-2", KNOWN)
        self.assertEqual(error.chain[1], "name one of them: web-2b, web-2b-x")
        self.assertRaises(Ambiguous, match, "config:web", KNOWN)

    def test_very_many(self) -> None:
        """Of very many names only some are compared."""
        known = {f"web-{number}": Known(("web", "1", "1")) for number in range(MOST_COMPARED)}
        known["databank-1"] = Known(("databank", "1", "1"))
        error = self.assertRaises(NoSuchInstance, match, "databankk-1", known)
        self.assertEqual(len(error.chain), 2)  # with the config's name
        self.assertEqual(match("data", known), "databank-1")

    @given(st.text(max_size=9))
    def test_any_text(self, wanted: str) -> None:
        """Any text stands for instances that exist, or is refused."""
        with contextlib.suppress(NoSuchInstance, Ambiguous):
            self.assertLessEqual(set(match_all(wanted, KNOWN)), set(KNOWN))


class MatchTests(ManagerTestCase):
    """The manager finds its instances so."""

    def test_match(self) -> None:
        """By a beginning, and by a config; the course's way takes only whole names."""
        one, other = self.launch(), self.launch(name="db")
        self.assertIs(self.manager.match("web"), one)
        self.assertEqual(self.manager.match_all("config:db-1"), [other])
        self.assertRaises(NoSuchInstance, self.manager.find, "web")
