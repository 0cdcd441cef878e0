"""What a launch shows on a terminal, beside its one line on stdout."""

from typing import Any

from tests.cli.session import NO_REASON, Session
from txcontain.cli import progress
from txcontain.cli.client import SLOW

LAUNCHED = {"instance": "web-1", "name": "web", "major": "1", "minor": "01"}
SMALL = {"tarball": "webserver.tar", "seconds": 0.5, "bytes": 0}
LARGE = {"tarball": "base\x1b.tar.gz", "seconds": 61.0, "bytes": 100 << 20}
CLEAR = "\r\x1b[K"


class ProgressTests(Session):
    """A launch that has to wait for an image."""

    def setUp(self) -> None:
        super().setUp()
        self.manager.answers_to("POST /launch", None)
        self.manager.answers_to("GET /instances/web-1", status=404)

    def launch(self, terminal: bool = True) -> Any:
        """Begin a launch; return the Deferred of its exit status."""
        self.patch(self.stderr, "isatty", lambda: terminal)
        return self.start("launch", "web", "1", "01")

    def wait(self, times: int = 1) -> None:
        """Wait until it has looked so many times."""
        for _ in range(times):
            self.clock.advance(progress.EVERY)
            self.http.flush()

    def answer(self, status: Any) -> int:
        """Have the launch answered; return the exit status of the command."""
        self.manager.waiting[0].write(
            b'{"instance": "web-1", "name": "", "major": "", "minor": ""}'
        )
        self.manager.waiting[0].finish()
        for _ in range(3):
            self.http.flush()
        return self.successResultOf(status)

    def test_shown(self) -> None:
        """What is unpacked is shown over itself, escaped, and cleared in the end."""
        self.manager.answers_to("GET /unpacking", {"unpacking": [SMALL]})
        status = self.launch()
        self.wait()
        self.assertEqual(self.err, f"{CLEAR}unpacking webserver.tar (0s)")
        self.manager.answers_to("GET /unpacking", {"unpacking": [LARGE]})
        self.wait()
        shown = f"{CLEAR}unpacking base\\x1b.tar.gz (1m, 100.0M so far)"
        self.assertTrue(self.err.endswith(shown), self.err)
        self.manager.answers_to("GET /unpacking", {"unpacking": []})
        self.wait()
        self.assertEqual(self.answer(status), 0)
        self.assertEqual(self.out, "Success: web-1\n")
        self.assertTrue(self.err.endswith(f"{CLEAR}{CLEAR}"))

    def test_elsewhere(self) -> None:
        """Without a terminal nothing is asked, and nothing but the one line is printed."""
        status = self.launch(terminal=False)
        self.wait(3)
        self.assertEqual((self.answer(status), self.out), (0, "Success: web-1\n"))
        self.assertEqual(self.err, "")
        self.assertEqual([asked for asked, _ in self.manager.asked], ["POST /launch"])

    def test_patience(self) -> None:
        """A launch is waited for as long as images come, or are unpacked."""
        status = self.launch(terminal=False)
        coming: list[dict[str, Any]] = [
            {"unpacking": [], "pulling": [{"image": "app", "seconds": 9, "bytes": n, "size": 9}]}
            for n in (1, 2)
        ]
        for told in (*coming, {"unpacking": [LARGE]}, {"unpacking": []}):
            self.assertNoResult(status)
            self.manager.answers_to("GET /unpacking", told)
            self.clock.advance(SLOW)
            self.http.flush()
        self.assertEqual(self.successResultOf(status), 1)
        self.assertIn("did not answer within 60 s", self.out)

    def test_older_manager(self) -> None:
        """A manager that does not tell is asked once, and the launch goes on."""
        self.manager.answers_to("GET /unpacking", status=404)
        status = self.launch()
        self.wait(3)
        self.assertEqual((self.answer(status), self.out), (0, "Success: web-1\n"))
        asked = [asked for asked, _ in self.manager.asked]
        self.assertEqual(asked.count("GET /unpacking"), 1)

    def test_answered_while_asking(self) -> None:
        """If the launch is answered first, nobody waits for how far it was."""
        self.manager.answers_to("GET /unpacking", None)
        status = self.launch()
        self.wait()
        self.assertEqual((self.answer(status), self.out), (0, "Success: web-1\n"))

    def test_refused(self) -> None:
        """A launch that fails says so, on a line that is empty."""
        status = self.launch()
        self.manager.waiting[0].setResponseCode(409)
        self.manager.waiting[0].finish()
        for _ in range(3):
            self.http.flush()
        self.assertEqual(self.successResultOf(status), 1)
        self.assertEqual(self.out, f"Failure: HTTP status 409 Conflict{NO_REASON}\n")
        self.assertEqual(self.err, CLEAR)

    def test_listens(self) -> None:
        """After the one line it says that the instance listens, if it does."""
        for record, said in (
            ({"ready": True, "port": 80}, "web-1 listens on port 80\n"),
            ({"ready": False, "port": 80}, ""),
            ({"ready": False, "port": None}, ""),
            ({}, ""),
        ):
            self.manager.answers_to("POST /launch", LAUNCHED)
            self.manager.answers_to("GET /instances/web-1", record)
            self.patch(self.stderr, "isatty", lambda: True)
            self.stderr.truncate(0)
            self.stderr.seek(0)
            self.assertEqual(self.run_command("launch", "web", "1", "01"), 0)
            self.assertEqual(self.err, CLEAR + said, record)
