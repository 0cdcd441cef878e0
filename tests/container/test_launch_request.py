"""What POST /instances takes, as data."""

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.support import document
from txcontain.container.launch_request import LaunchRequest, read_launch_request
from txcontain.container.spec import from_json
from txcontain.errors import InvalidData

WHOLE = json.loads(document())
TAKEN = (
    ({"config": "web"}, LaunchRequest("web")),
    ({"config": "web", "major": "1"}, LaunchRequest("web", "1")),
    ({"config": "web", "major": "1", "minor": "01"}, LaunchRequest("web", "1", "01")),
    ({"config": "web", "instance": None}, LaunchRequest("web")),
    ({"config": "web", "instance": "a.b-C_1"}, LaunchRequest("web", instance="a.b-C_1")),
    ({"config": "web", "instance": "a" * 63}, LaunchRequest("web", instance="a" * 63)),
    ({"config": "web", "remove": True}, LaunchRequest("web", remove=True)),
    ({"config": "web", "labels": {"a/b": ""}}, LaunchRequest("web", labels={"a/b": ""})),
    ({"config": WHOLE}, LaunchRequest(from_json(document()))),
)
REFUSED = (
    ({}, "the key 'config' is missing"),
    ({"config": ["web"]}, "config must be the name of a config"),
    ({"config": "../web"}, "config must be up to 50"),
    ({"config": {}}, "the key 'name' is missing"),
    ({"config": {**WHOLE, "colour": 1}}, "a config has no key 'colour'"),
    ({"config": WHOLE, "major": "1"}, "a whole config has its own major and minor"),
    ({"config": "web", "minor": "1"}, "a launch with a minor has a major too"),
    ({"config": "web", "major": 1}, "major must be a string"),
    ({"config": "web", "name": "a"}, "a launch has no key 'name'"),
    ({"config": "web", "remove": 1}, "remove must be true or false, not 1"),
    ({"config": "web", "labels": ["a"]}, "labels must be an object of up to 64 strings"),
    (
        {"config": "web", "labels": {str(n): "" for n in range(65)}},
        "labels must be an object of up to 64 strings, not an object of 65",
    ),
    ({"config": "web", "labels": {"-a": ""}}, "a label's name must be up to 63"),
    ({"config": "web", "labels": {"a": 1}}, "the label a must be a string, not 1"),
    ({"config": "web", "labels": {"a": "b" * 256}}, "the label a is longer than 255"),
    ({"config": "web", "labels": {"stack": "a"}}, "the label stack is only for instances of"),
    *(
        ({"config": "web", "instance": name}, "instance must be up to 63")
        for name in ("", ".", "..", ".a", "a.", "-a", "a-", "a/b", "a b", "a\n", "é", "a" * 64, 1)
    ),
    ({"config": "web", "instance": "LocalHost"}, "no instance can have the name LocalHost"),
)


class Requests(SynchronousTestCase):
    """Which launches can be asked for."""

    def test_taken(self) -> None:
        """A config is named, with or without its version, or comes whole."""
        for values, wanted in TAKEN:
            self.assertEqual(read_launch_request(values), wanted)

    def test_refused(self) -> None:
        """All else is refused by a sentence."""
        for values, said in REFUSED:
            case: Any = values
            error = self.assertRaises(InvalidData, read_launch_request, case)
            self.assertIn(said, str(error))
