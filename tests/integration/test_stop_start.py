"""Instances are stopped and started, paused and resumed, with real processes and mounts."""

import os
import signal
import time
from typing import Any

from tests.integration.harness import ManagerCase, wait_until
from tests.integration.tarballs import folder

WRITING = """#!/bin/sh
trap 'echo bye >> /data/log; exit 0' TERM
echo hello >> /data/log
cat /data/log
echo there
while :; do sleep 0.02; done
"""
COUNTING = "#!/bin/sh\ni=0\nwhile :; do i=$((i+1)); echo $i; sleep 0.02; done\n"


class StopStartCase(ManagerCase):
    """Tests of these verbs."""

    def change(self, name: str, verb: str, **values: Any) -> Any:
        """Have an instance do something; what it is then."""
        answer = self.ask("POST", f"/instances/{name}/{verb}", values)
        self.assertEqual(answer.status, 200, answer.body)
        return answer.json

    def restart_manager(self) -> None:
        """SIGKILL to the manager, and a new one."""
        self.manager.kill()
        self.manager.wait()
        self.start()

    def writing(self, **changes: Any) -> str:
        """An instance that writes into a READWRITE mount."""
        empty = self.mountable("empty.tar", folder("empty"))
        mounts = [f"{empty} /data READWRITE"]
        job = self.job(WRITING, mounts=mounts, stop_timeout=60, **changes)
        name = self.launch(**job)
        self.wait_for(name, "there")
        return name

    def wait_for(self, name: str, text: str) -> None:
        """Wait until an instance has written this."""
        wait_until(lambda: text in self.log_of(name), "it has written")

    def counted(self, name: str) -> int:
        """How far an instance has counted."""
        return len(self.log_of(name).splitlines())


class StopStart(StopStartCase):
    """Data outlives a stop."""

    def test_data(self) -> None:
        """With any policy and network, what was written is there at the next start."""
        for keys in (
            {},
            {"restart": "always"},
            {"writable_root": True},
            {"user_namespace": True},
            {"network": "private"},
        ):
            name = self.writing(**keys)
            self.assertEqual(self.change(name, "stop")["state"], "stopped")
            self.restart_manager()
            self.assertEqual(self.running(), [])
            pid = self.change(name, "start")["pid"]
            self.wait_for(name, "hello\nbye\nhello\nthere\n")
            self.assertNotEqual(self.change(name, "restart")["pid"], pid)
            self.assertEqual(self.ask("DELETE", f"/destroy/{name}").status, 200)

    def test_ended(self) -> None:
        """What has ended by itself, or was killed, is started with its data."""
        name = self.writing()
        pid = self.ask("GET", f"/instances/{name}").json["pid"]
        os.kill(pid, signal.SIGKILL)
        self.assertEqual(self.ask("GET", f"/instances/{name}/wait").status, 200)
        self.change(name, "start")
        wait_until(lambda: "hello\nhello\n" in self.log_of(name), "it has written again")

    def test_kill(self) -> None:
        """A signal reaches PID 1; SIGKILL stops what would not end."""
        deaf = "#!/bin/sh\ntrap 'echo heard' USR1\ntrap '' TERM\necho there\n"
        name = self.launch(**self.job(f"{deaf}while :; do sleep 0.02; done\n", stop_timeout=60))
        wait_until(lambda: "there" in self.log_of(name), "it listens")
        self.change(name, "kill", signal="USR1")
        wait_until(lambda: "heard" in self.log_of(name), "it has heard")
        ended = self.change(name, "kill")
        self.assertEqual((ended["state"], ended["exit"]["signal"]), ("stopped", signal.SIGKILL))


class Rename(StopStartCase):
    """An instance gets another name while it writes."""

    def test_no_line_is_lost(self) -> None:
        """Its log goes on in the new place, also under a new manager."""
        name = self.launch(**self.job(COUNTING))
        for to in ("one", "two"):
            self.assertEqual(self.change(name, "rename", to=to)["instance"], to)
            name = to
            self.wait_for(name, f"\n{self.counted(name) + 5}\n")
            self.restart_manager()
            self.wait_for(name, f"\n{self.counted(name) + 5}\n")
        lines = [int(line) for line in self.log_of(name).split()]
        self.assertEqual(lines, list(range(1, len(lines) + 1)))
        self.assertEqual(self.change(name, "restart")["state"], "running")
        self.assertEqual(self.ask("DELETE", "/destroy/two").status, 200)


class Pause(StopStartCase):
    """A paused instance does nothing, until it is resumed."""

    def test_pause(self) -> None:
        """It stands still, also for the next manager, and then goes on."""
        name = self.launch(**self.job(COUNTING))
        wait_until(lambda: self.counted(name) > 2, "it counts")
        self.assertTrue(self.change(name, "pause")["paused"])
        self.restart_manager()
        before = self.counted(name)  # also what it had written just before
        time.sleep(0.3)
        self.assertTrue(self.ask("GET", f"/instances/{name}").json["paused"])
        self.assertEqual((self.counted(name), self.running()), (before, [name]))
        self.change(name, "resume")
        wait_until(lambda: self.counted(name) > before, "it goes on")

    def test_end(self) -> None:
        """Paused, it can be stopped, killed and destroyed."""
        for verb in ("stop", "kill"):
            name = self.writing()
            self.change(name, "pause")
            self.assertEqual(self.change(name, verb)["state"], "stopped")
            self.change(name, "start")
            self.change(name, "pause")
            self.assertEqual(self.ask("DELETE", f"/destroy/{name}").status, 200)
