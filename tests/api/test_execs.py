"""Commands in instances, over HTTP: on a fake machine."""

import json
import signal
from typing import Any

from tests.api.test_resources import WebTestCase
from txcontain.api.execs import LONGEST


class ExecCase(WebTestCase):
    """A test with an instance that runs."""

    def setUp(self) -> None:
        super().setUp()
        self.name = self.launch().name

    def posted(self, **values: Any) -> Any:
        """A request for a command that is on its way."""
        body = json.dumps({"command": ["ls"], **values}).encode()
        return self.asked("POST", f"/instances/{self.name}/exec", body)


class PostTests(ExecCase):
    """POST /instances/INSTANCE/exec."""

    def test_whole(self) -> None:
        """The answer has the output and the exit of a command that got its input."""
        response = self.posted(stdin="given", timeout=LONGEST)
        (joiner,) = self.reactor.joiners
        joiner.write_out(b"out")
        joiner.end(3)
        joiner.close_pipes()
        self.settle()
        answer = self.successResultOf(response)
        content = answer.content()
        self.settle()
        said = json.loads(self.successResultOf(content))
        self.assertEqual((said["stdout"], said["exit"]["status"]), ("out", 3))
        self.assertEqual(joiner.given, b"given")

    def test_hung_up(self) -> None:
        """A client that hangs up has its command ended."""
        response = self.posted()
        response.cancel()
        self.settle()
        self.failureResultOf(response)
        (joiner,) = self.reactor.joiners
        self.assertEqual(joiner.signals, [signal.SIGHUP])
        joiner.end(None, signal.SIGHUP)
        joiner.close_pipes()

    def test_hung_up_before(self) -> None:
        """So does one that hangs up before its command runs."""
        self.reactor.works = False
        response = self.posted()
        response.cancel()
        self.settle()
        self.failureResultOf(response)
        (joiner,) = self.reactor.joiners
        joiner.carry_out()
        self.settle()
        self.assertEqual(joiner.signals, [signal.SIGHUP])
        joiner.end(None, signal.SIGHUP)
        joiner.close_pipes()


class ExplainTests(ExecCase):
    """GET /instances/INSTANCE/exec/explain."""

    def test_script(self) -> None:
        """It is the script of the command that the query names, or of a shell."""
        path = f"/instances/{self.name}/exec/explain"
        status, _, body = self.ask("GET", f"{path}?command=ls&command=-l&env=A=1&user=bob")
        self.assertEqual(status, 200)
        self.assertTrue(body.decode().rstrip().endswith("ls -l"))
        self.assertIn(b"A=1", body)
        _, _, body = self.ask("GET", path)
        self.assertTrue(body.decode().rstrip().endswith("/bin/sh"))
