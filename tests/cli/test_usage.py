"""What instances use, as the commands show it."""

from tests.cli.session import Session
from tests.cli.test_ps import WEB as RECORD
from txcontain.cli import usage

WEB = {"instance": "web-1", "name": "web", "major": "1", "minor": "01"}
BUSY = {
    **WEB,
    "limits": {"memory": 1 << 30},
    "memory": 1536,
    "pids": 3,
    "network_received": 2048,
    "network_sent": 0,
    "io_read": 1 << 20,
    "io_written": 512,
    "pressure": {"cpu": 12.5, "memory": 0.99, "io": 1.0},
}


class StatsTests(Session):
    """`txcontain stats`."""

    def test_stats(self) -> None:
        """The table has processor time too, which takes two readings, a second apart."""
        self.patch(usage.time, "monotonic", self.clock.seconds)
        self.manager.answers_to("GET /stats", {"stats": [{**BUSY, "cpu_usec": 10_000}]})
        for words in (["stats", "--once"], ["stats"]):
            status = self.start(*words)
            self.http.flush()
            self.manager.answers_to("GET /stats", {"stats": [{**BUSY, "cpu_usec": 260_000}]})
            self.clock.advance(usage.EVERY)
            self.assertEqual(self.successResultOf(status), 0)
        self.assertEqual(
            self.out.splitlines()[:2],
            [
                "INSTANCE  CPU     MEMORY  LIMIT  PEAK  PIDS  NET I/O    BLOCK I/O    PRESSURE",
                "web-1     25.0 %  1.5K    1.0G   -     3     2.0K / 0B  1.0M / 512B  "
                "cpu 12 %, io 1 %",
            ],
        )

    def test_only_these(self) -> None:
        """Only the instances that were named are shown, and config:NAME stands for several."""
        self.patch(usage.time, "monotonic", self.clock.seconds)
        all_of_them = [{**BUSY, "instance": name} for name in ("web-1", "web-2", "db-1")]
        self.manager.answers_to("GET /stats", {"stats": all_of_them})
        records = [{**RECORD, "instance": name} for name in ("web-1", "web-2")]
        self.manager.answers_to("GET /instances?match=config%3Aweb", {"instances": records})
        status = self.start("stats", "--once", "config:web")
        self.http.flush()
        self.clock.advance(usage.EVERY)
        self.assertEqual(self.successResultOf(status), 0)
        shown = [line.split()[0] for line in self.out.splitlines()[1:]]
        self.assertEqual(shown, ["web-1", "web-2"])

    def test_one_started_again(self) -> None:
        """After a restart an instance has used less than before: no share is shown."""
        told = {"instance": "web-1", "limits": {}, "cpu_usec": 5}
        self.assertEqual(usage.usage_row(told, {"web-1": 6}, 1.0)[1], "-")
        self.assertEqual(usage.usage_row(told, {}, 1.0)[1], "-")

    def test_not_counted(self) -> None:
        """What the machine does not count is a dash."""
        told = {"instance": "web-1", "limits": {}, "network_sent": 5}
        self.assertEqual(usage.usage_row(told, {}, 1.0), ["web-1", *"--------"])


class TopTests(Session):
    """`txcontain top`."""

    def test_top(self) -> None:
        """Each process is a line, escaped; how many are left out is said on stderr."""
        process = {
            "pid": 1,
            "host_pid": 4711,
            "user": 33,
            "cpu_usec": 1_250_000,
            "memory": 3 << 20,
            "command": "sh -c \x1b[2J\necho",
        }
        self.manager.answers_to("GET /instances/web/top", {"processes": [process], "more": 0})
        self.assertEqual((self.run_command("top", "web"), self.err), (0, ""))
        self.assertEqual(
            self.out,
            "PID  HOST PID  USER  CPU   MEMORY  COMMAND\n"
            "1    4711      33    1.2s  3.0M    sh -c \\x1b[2J; echo\n",
        )
        self.manager.answers_to("GET /instances/web/top", {"processes": [process], "more": 7})
        self.assertEqual((self.run_command("top", "web"), self.err), (0, "and 7 more\n"))
