"""Nodes, as far as a manager of one host has them; tests/swarm/ has the others."""

import json
from typing import Any

from treq.testing import StubTreq

from tests.api.test_resources import be_known
from tests.fakes import ManagerTestCase
from txcontain.api.nodes import LABELS
from txcontain.api.resources import make_root
from txcontain.engine.this_host import ThisHost
from txcontain.errors import InvalidData


class NodeTests(ManagerTestCase):
    """What is asked of nodes."""

    def test_one_host(self) -> None:
        """A manager of one host has none, and says in a sentence what does."""
        be_known(self)
        http: Any = StubTreq(make_root(ThisHost(self.manager)))
        labels = {"labels": {"a": "b"}}
        for method, path, document in (
            ("GET", "/nodes", None),
            ("GET", "/nodes/h1", None),
            ("POST", "/nodes/h1/drain", None),
            ("POST", "/nodes/h1/activate", None),
            ("POST", "/nodes/h1/labels", labels),
        ):
            asked = http.request(method, f"http://localhost{path}", json=document)
            response = self.successResultOf(asked)
            problem = json.loads(self.successResultOf(response.content()))
            self.assertEqual(response.code, 404, path)
            self.assertEqual(problem["detail"], "this manager has one host, and no nodes")

    def test_labels(self) -> None:
        """Labels are an object of names and texts, or nulls; else it is said what is wrong."""
        check = LABELS["labels"]
        self.assertEqual(
            check("labels", {"disk": "ssd", "x.y": None}), {"disk": "ssd", "x.y": None}
        )
        for value, words in (
            ([], 'labels must be an object such as {"disk": "ssd"}, not a list of 0'),
            ({}, "labels must be an object"),
            ({"-": "a"}, "a label's name is letters, digits, '.', '_' and '-', not '-'"),
            ({"a": 1}, "labels.a must be up to 255 characters or null: 1"),
            ({"a": "\n"}, "labels.a must be"),
            ({"a": "x" * 256}, "labels.a must be"),
        ):
            error = self.assertRaises(InvalidData, check, "labels", value)
            self.assertIn(words, str(error))
