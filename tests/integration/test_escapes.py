"""Each wall and the escape that it stops: seen to succeed without the wall, and to fail with it."""

from __future__ import annotations

import json
import socket
from typing import Any

from tests.integration.harness import ManagerCase, wait_until
from tests.integration.tarballs import tools
from tests.support import needs_user_namespaces
from txcontain.container.escapes import ESCAPES

# What a config has to say to have a wall that not each container has.
KEYS: dict[str, dict[str, Any]] = {
    "user namespace": {"user_namespace": True},
    "network namespace": {"network": "none"},
    "no root": {"startup_owner": "worker"},
    "memory": {"limits": {"memory": "16M"}},
    "processes": {"limits": {"pids": 20}},
    "processors": {"limits": {"cpus": 0.01}},
}


class EscapeTests(ManagerCase):
    """The table of all of them, with a manager that may leave out walls."""

    options = ("--allow-unsafe",)

    def add_images(self) -> None:
        """An image with what escapes need."""
        self.image("small.tar", *tools("chroot", "head", "unshare"))

    @needs_user_namespaces
    def test_each_wall(self) -> None:
        """Each escape gets out without its wall, and not with it; nothing stays, all is told."""
        host = socket.gethostname()
        for escape in ESCAPES:
            config = "-".join(self.upload(**KEYS.get(escape.wall, {})).values())
            answer = self.ask("POST", f"/escapes/{config}", {"without": escape.wall})
            self.assertEqual(self.ask("GET", "/instances").json, {"instances": []})
            self.assertEqual(answer.status, 200, (escape.wall, answer.reason))
            got = [answer.json[which]["escaped"] for which in ("without", "with")]
            self.assertEqual(got, [True, False], (escape.wall, answer.json))
            self.assertTrue(answer.json["without"]["said"], escape.wall)
        wait_until(lambda: not self.what_is_left(), "nothing is left")
        self.assertEqual(socket.gethostname(), host)
        events = map(json.loads, self.ask("GET", "/events").body.splitlines())
        reasons = [event["reason"] for event in events if event["what"] == "unsafe"]
        told = [reason.rpartition(": ")[2] for reason in reasons]
        self.assertEqual(told, [escape.wall for escape in ESCAPES])
        plain = "-".join(self.upload().values())
        refused = self.ask("POST", f"/escapes/{plain}", {"without": "user namespace"})
        self.assertEqual(refused.status, 409)
        self.assertIn("this wall is not there: user namespace", refused.reason)
