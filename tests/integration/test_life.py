"""A manager may be stopped at any moment: containers run on, and the half-made is undone."""

import contextlib
import glob
import http.client
import os
import re
import shutil
import signal
import stat
import subprocess
import threading
import time
from pathlib import Path
from select import select
from typing import Any

from tests.integration.harness import PATIENCE, ManagerCase, free_port, listens, wait_until
from tests.integration.tarballs import script
from tests.support import unmount
from txcontain.host.processes import descendants

SABOTAGE = Path(__file__).with_name("sabotage")
PROJECT = Path(__file__).resolve().parents[2]
COUNTING = "#!/bin/sh\ni=0\nwhile :; do i=$((i+1)); echo $i; sleep 0.05; done\n"
SAYING_LAST = """#!/bin/sh
trap 'echo last; exit' TERM
echo first
while :; do sleep 0.05; done
"""


class LifeCase(ManagerCase):
    """Tests that kill the manager."""

    def kill_manager(self) -> None:
        """SIGKILL, as the kernel's out-of-memory killer would."""
        self.manager.kill()
        self.manager.wait()

    def restart(self, **environment: str) -> None:
        """SIGKILL to the manager, and a new one."""
        self.kill_manager()
        self.start(**environment)

    def sabotaged(self, **settings: Any) -> Any:
        """The environment of a manager that dies at a chosen point."""
        return {"PYTHONPATH": f"{SABOTAGE}:{PROJECT}", **settings}

    def record(self, instance: str) -> Any:
        """All that the manager knows of an instance."""
        return self.ask("GET", f"/instances/{instance}").json

    def ask_in_background(self, *request: Any) -> None:
        """Send a request that may never be answered."""

        def ask() -> None:
            with contextlib.suppress(OSError):  # the manager was killed
                self.ask(*request)

        thread = threading.Thread(target=ask)
        thread.start()
        self.addCleanup(thread.join)


class Adoption(LifeCase):
    """Containers outlive the manager."""

    def test_running_ones_are_found_again(self) -> None:
        """After SIGKILL, a new manager lists the same processes in the same order."""
        names = [self.launch() for _ in range(3)]
        pids = [self.record(name)["pid"] for name in names]
        self.restart()
        self.assertEqual(self.running(), names)
        self.assertEqual([self.record(name)["pid"] for name in names], pids)

    def test_no_line_is_lost(self) -> None:
        """A container goes on writing to its log while no manager runs."""
        name = self.launch(**self.job(COUNTING))
        log = self.state / "instances" / name / "log"

        def wait_for(line: bytes) -> None:
            wait_until(
                lambda: any(line in path.read_bytes() for path in log.glob("*.log")), "it counts"
            )

        wait_for(b"\n2\n")
        self.kill_manager()
        wait_for(b"\n9\n")
        self.start()
        wait_until(lambda: "\n12\n" in self.log_of(name), "it counts on")
        lines = self.log_of(name).split()
        self.assertEqual(lines, [str(i + 1) for i in range(len(lines))])

    def test_one_that_does_not_listen_yet(self) -> None:
        """A script that runs is no launch cut short, though its PORT is still waited for."""
        config = self.upload(**self.job("#!/bin/sh\nsleep 1000\n", startup_env="PORT=9"))
        self.ask_in_background("POST", "/launch", config)
        (name,) = wait_until(self.running, "its script runs")
        pid = self.record(name)["pid"]
        self.restart()
        self.assertEqual((self.running(), self.record(name)["pid"]), ([name], pid))

    def test_scribbled_run_directories(self) -> None:
        """A container is found by what the kernel says, whatever is put into its run directory."""
        name = self.launch()
        pid = self.record(name)["pid"]
        self.kill_manager()
        folder = self.state / "run/slots"
        (folder / "stray").write_text("nothing of ours")
        (folder / "0123456789abcdef/folder").mkdir(parents=True)
        (exit_file,) = folder.glob("*/exit")
        exit_file.with_name("stray").write_text("nothing of ours")
        self.start()
        self.assertEqual((self.running(), self.record(name)["pid"]), ([name], pid))
        (folder / "stray").unlink()
        shutil.rmtree(folder / "0123456789abcdef")

    def test_followed_to_its_last_line(self) -> None:
        """Who follows an instance that is destroyed gets its last words."""
        name = self.launch(**self.job(SAYING_LAST, stop_timeout=60))
        connection = http.client.HTTPConnection("localhost", self.port, timeout=PATIENCE)
        self.addCleanup(connection.close)
        connection.request("GET", f"/instances/{name}/logs?follow=1")
        answer = connection.getresponse()
        self.assertEqual(answer.readline(), b"first\n")
        self.assertEqual(self.ask("DELETE", f"/destroy/{name}").status, 200)
        self.assertEqual(answer.read(), b"last\n")

    def test_an_end_that_no_manager_saw(self) -> None:
        """What ended meanwhile is told with its true status or signal."""
        told = "#!/bin/sh\ntrap 'exit 137' USR1\necho ready\nwhile :; do sleep 0.05; done\n"
        status, killed = self.launch(**self.job(told)), self.launch()
        wait_until(lambda: self.log_of(status) == "ready\n", "it can be told to end")
        pids = [self.record(name)["pid"] for name in (status, killed)]
        self.kill_manager()
        for pid, number in zip(pids, (signal.SIGUSR1, signal.SIGKILL), strict=True):
            os.kill(pid, number)
        wait_until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids), "both end")
        self.start()
        self.assertEqual(self.running(), [])
        self.assertEqual(self.record(status)["exit"]["status"], 137)
        self.assertEqual(self.record(killed)["exit"]["signal"], signal.SIGKILL)
        self.assertLess(abs(self.record(killed)["exit"]["at"] - time.time()), 30)

    def test_an_end_after_the_adoption(self) -> None:
        """The end of an adopted container is noticed, though no one asks for it."""
        name = self.launch()
        pid = self.record(name)["pid"]
        self.restart()
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: self.record(name)["state"] == "ended", "its end is noticed")

    def test_an_adopted_one_can_be_destroyed(self) -> None:
        """Destroy works, and leaves nothing."""
        name = self.launch()
        self.restart()
        self.assertEqual(self.ask("DELETE", f"/destroy/{name}").status, 200)
        self.assertEqual(self.ask("GET", f"/instances/{name}").status, 404)

    def test_a_stop_is_finished(self) -> None:
        """A destroy during which the manager was killed is finished by the next one."""
        deaf = "#!/bin/sh\ntrap : TERM\necho deaf\nwhile :; do sleep 0.1; done\n"
        name = self.launch(**self.job(deaf, stop_timeout=60))
        wait_until(lambda: self.log_of(name) == "deaf\n", "it is deaf")
        self.ask_in_background("DELETE", f"/destroy/{name}")
        folder = self.state / "instances" / name
        wait_until(lambda: folder.stat().st_mode & stat.S_ISUID, "that it is to go is on the disk")
        self.kill_manager()
        record = self.state / "instances" / name / "instance.json"
        text, count = re.subn(r"(stop_timeout\W+)60\b", r"\g<1>0", record.read_text())
        self.assertEqual(count, 1, text)
        record.write_text(text)
        self.start()
        wait_until(lambda: self.ask("GET", f"/instances/{name}").status == 404, "it is gone")

    def test_restarts_go_on(self) -> None:
        """A policy holds across managers: what ended meanwhile is started again."""
        name = self.launch(**self.job("#!/bin/sh\nsleep 0.2\n", restart="always"))
        pid = self.record(name)["pid"]
        self.kill_manager()
        wait_until(lambda: not os.path.exists(f"/proc/{pid}"), "it has ended")
        self.start()
        wait_until(lambda: self.record(name)["restarts"] >= 2, "it is started again")

    def test_a_scribbled_record(self) -> None:
        """A record that can't be read is set aside; everything else comes up."""
        whole, spoiled = self.launch(), self.launch()
        self.kill_manager()
        (self.state / "instances" / spoiled / "instance.json").write_bytes(b'{"x": \xff')
        self.start()
        self.assertEqual(self.running(), [whole])
        self.assertEqual(len(list(self.state.glob("aside/*"))), 1)


class EndsAtOnce(LifeCase):
    """Scripts that end before the manager hears that they run."""

    pool = 2

    def test_restarted(self) -> None:
        """Each one is started again, as its policy says, however soon it has ended."""
        wanted = self.upload(**self.job("#!/bin/sh\nexit 3\n", restart="always"))
        names = [self.ask("POST", "/launch", wanted).json["instance"] for _ in range(40)]
        wait_until(lambda: all(self.record(name)["restarts"] for name in names), "all restarted")

    def test_kept(self) -> None:
        """Each one is kept, with its exit, over a restart of the manager."""
        wanted = self.upload(**self.job("#!/bin/sh\nexit 3\n"))
        names = [self.ask("POST", "/launch", wanted).json["instance"] for _ in range(40)]
        for name in names:
            self.assertEqual(self.ask("GET", f"/instances/{name}/wait").status, 200)
        self.restart()
        exits = [self.record(name)["exit"]["status"] for name in names]
        self.assertEqual(exits, [3] * len(names))


class Warm(LifeCase):
    """Inits that wait for a plan."""

    pool = 1

    def test_unmounted_disk(self) -> None:
        """They let go of a disk that the host unmounts, as does a container."""
        disk = self.folder / "host" / "disk"
        self.mount(disk.parent)
        subprocess.run(["mount", "--make-shared", disk.parent], check=True)  # as systemd has all
        self.mount(disk)
        self.restart()
        pid = self.record(self.launch())["pid"]

        def who_has_it() -> list[int]:  # others on this host may have copied the mount
            return [one for one in descendants(self.manager.pid) if self.has(one, disk)]

        wait_until(who_has_it, "one is warm")
        self.assertIn(pid, descendants(self.manager.pid))
        subprocess.run(["umount", disk], check=True)
        wait_until(lambda: not who_has_it(), "all have let go of it")

    def mount(self, place: Path) -> None:
        """Mount a file system there, until the test ends."""
        place.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "disk", place], check=True)
        again = ["umount", str(place)]
        self.addCleanup(lambda: subprocess.run(again, stderr=subprocess.DEVNULL))

    def has(self, process: int, place: Path) -> bool:
        """Whether a process has mounts of its own, and one at this place."""
        proc = Path("/proc")
        with contextlib.suppress(OSError):  # it has ended
            own = os.readlink(proc / f"{process}/ns/mnt") != os.readlink(proc / "self/ns/mnt")
            return own and str(place) in (proc / f"{process}/mountinfo").read_text()
        return False


class EveryStep(LifeCase):
    """The manager is killed while the init is at a step of the plan."""

    def prepare(self) -> Any:
        """A folder with an init that waits."""
        shutil.copy(SABOTAGE / "init.py", self.folder / "init.py")
        os.symlink(PROJECT / "txcontain/container/init.py", self.folder / "real")
        for name in ("waits", "go"):
            os.mkfifo(self.folder / name)
        waits = os.open(self.folder / "waits", os.O_RDWR)
        go = os.open(self.folder / "go", os.O_RDWR | os.O_NONBLOCK)
        self.addCleanup(os.close, waits)
        self.addCleanup(os.close, go)
        return waits, go

    def test_every_step(self) -> None:
        """Wherever it was: the next manager has undone it, and launches the same config."""
        waits, go = self.prepare()
        key = self.upload(**self.job("#!/bin/sh\nsleep 1000\n"))
        plan = self.record(self.ask("POST", "/launch", key).json["instance"])["plan"]
        self.ask("DELETE", "/destroyall")
        environment = self.sabotaged(SABOTAGE_INIT=str(self.folder / "init.py"))
        for step in range(len(plan)):
            (self.folder / "step").write_text(str(step))
            self.restart(**environment)
            self.assertEqual(self.ask("GET", "/instances").json, {"instances": []}, f"step {step}")
            with contextlib.suppress(BlockingIOError):  # the last init was killed before it read
                os.read(go, 1)
            self.ask_in_background("POST", "/launch", key)
            self.assertTrue(select([waits], [], [], PATIENCE)[0], f"it waits at step {step}")
            os.read(waits, 1)
            self.kill_manager()
            os.write(go, b"!")
        self.start()
        self.assertEqual(self.ask("GET", "/instances").json, {"instances": []})
        wait_until(lambda: not self.what_is_left(), "nothing is left")
        self.assertEqual(self.ask("POST", "/launch", key).status, 200)


class FailedLaunch(LifeCase):
    """What is kept of a launch that failed."""

    def test_kept(self) -> None:
        """Its reason and its log outlive the manager; the next launch of its name replaces it."""
        gives_up = script("run", "#!/bin/sh\necho I give up >&2\ntouch /data/x\nexit 3\n")
        mounts = [f"{self.mountable('gives_up.tar', gives_up)} /data READWRITE"]
        port = {"startup_env": f"PORT={free_port()}"}
        config = self.config(mounts=mounts, startup_script="/data/run", **port)
        answer = self.ask("POST", "/instances", {"config": config, "instance": "job"})
        self.assertEqual(answer.status, 409)
        why = " → ".join([answer.json["detail"], *answer.json["chain"]])
        for _ in range(2):
            record = self.record("job")
            self.assertEqual((record["state"], record["exit"]["status"]), ("failed", 3))
            self.assertEqual(record["exit"]["reason"], why)
            self.assertEqual(self.ask("GET", "/instances/job/logs").body, b"I give up\n")
            self.assertEqual(self.ask("GET", "/instances/job/explain").status, 200)
            self.assertEqual(self.running(), [])
            self.restart()
        self.assertEqual(set(os.listdir(self.state / "instances/job")), {"instance.json", "log"})
        config = self.config(command=["sleep", "60"])
        answer = self.ask("POST", "/instances", {"config": config, "instance": "job"})
        self.assertEqual(answer.status, 200, answer.reason)
        self.assertEqual(self.running(), ["job"])


class EveryWrite(LifeCase):
    """The manager is killed in place of a system call by which it writes a small file."""

    def test_every_write(self) -> None:
        """Whichever it was: a config is there whole or not at all, no half instance is shown."""
        for number in range(1, 100):
            if self.starts(number) and self.survives():
                break
            self.start()
            self.look()
        programs, config = ["write", "rename"] * 2, ["write", "flush", "link", "flush", "unlink"]
        record = ["write", "rename"]
        self.assertEqual(number, len(programs + config + record) + 1)

    def starts(self, number: int) -> Any:
        """Start a manager that dies at this call; returns whether it has lived until it answers."""
        with contextlib.suppress(self.failureException):
            self.restart(**self.sabotaged(SABOTAGE_DISK=str(number)))
            return True
        return False

    def survives(self) -> Any:
        """Upload, launch and destroy; returns whether the manager has lived through it."""
        config = self.config(name="same", minor="1")
        key = {name: config[name] for name in ("name", "major", "minor")}
        try:
            self.ask("POST", "/config", config)
            instance = self.ask("POST", "/launch", key).json["instance"]
            self.ask("DELETE", f"/destroy/{instance}")
            return True
        except OSError:
            self.manager.wait(5)
            return False

    def look(self) -> None:
        """What the next manager shows is whole; then begin anew."""
        files = self.ask("GET", "/cfginfo").json["files"]
        self.assertIn(files, ([], ["same-1-1.cfg"]))
        self.assertEqual(sorted(os.listdir(self.state / "configs")), files)
        if files:
            key = {"name": "same", "major": "1", "minor": "1"}
            self.assertEqual(self.ask("POST", "/launch", key).status, 200)
        self.assertEqual(self.ask("DELETE", "/destroyall").status, 200)
        wait_until(lambda: not self.what_is_left(), "nothing is left")
        for file in files:
            (self.state / "configs" / file).unlink()


class Unpacking(LifeCase):
    """The manager is killed while it unpacks."""

    def test_it_is_unpacked_anew(self) -> None:
        """Half a layer is never taken for one, and what unpacks it is ended."""
        files = [script(f"f{i}", "x" * 20_000) for i in range(3000)]
        key = self.upload(mounts=[f"{self.mountable('many.tar', *files)} /many READ"])
        self.ask_in_background("POST", "/launch", key)
        begun = f"{self.state}/layers/*.unpacking/layer/*"
        wait_until(lambda: glob.glob(begun), "it unpacks")  # it may be over while this looks
        self.restart()
        wait_until(lambda: not self.what_is_left(), "nothing is left")
        answer = self.ask("POST", "/launch", key)
        self.assertEqual(answer.status, 200, answer.reason)
        pid = self.record(answer.json["instance"])["pid"]
        self.assertEqual(len(os.listdir(f"/proc/{pid}/root/many")), 3000)


class OwnDisk(LifeCase):
    """The state folder is an ext4 of its own."""

    def setUp(self) -> None:
        super().setUp()
        self.stop()
        image = self.folder / "disk"
        image.touch()
        os.truncate(image, 64 << 20)
        subprocess.run(["mkfs.ext4", "-q", image], check=True)
        shutil.rmtree(self.state)
        self.state.mkdir()
        subprocess.run(["mount", "-o", "loop", image, self.state], check=True)
        self.addCleanup(unmount, self.state, "--lazy")
        self.start()

    def test_apart(self) -> None:
        """Each layer is put into a part of the disk of its own, unlike each instance."""
        for name, apart in (("layers", True), ("instances", False)):
            told = subprocess.run(
                ["lsattr", "-d", self.state / name], stdout=subprocess.PIPE, text=True, check=True
            ).stdout
            self.assertEqual("T" in told.split()[0], apart, told)

    def test_frozen(self) -> None:
        """While the disk takes nothing (fsfreeze(8)), all that is only to be told is answered.

        What waited is done after the thaw.
        """
        self.launch(**self.job("#!/bin/sh\nsleep 1000\n"))
        ends = self.launch(**self.job("#!/bin/sh\nsleep 1; exit 3\n"))
        key = self.upload()
        subprocess.run(["fsfreeze", "-f", self.state], check=True)
        try:
            self.ask_in_background("POST", "/launch", key)
            slowest = max(self.time_of_a_list() for _ in range(300))
        finally:
            subprocess.run(["fsfreeze", "-u", self.state], check=True)
        self.assertLess(slowest, 5)  # seconds; and not until the thaw
        wait_until(lambda: self.record(ends)["exit"], "the end is noticed")
        wait_until(lambda: len(self.running()) == 2, "the launch is done")
        self.restart()
        self.assertEqual(self.record(ends)["exit"]["status"], 3)
        self.assertEqual(len(self.running()), 2)

    def time_of_a_list(self) -> Any:
        """How long an answer takes, in seconds."""
        begun = time.monotonic()
        self.running()
        time.sleep(0.01)
        return time.monotonic() - begun


class FullDisk(LifeCase):
    """The disk that holds the state folder is full."""

    def setUp(self) -> None:
        """Put the state folder on a small disk."""
        super().setUp()
        self.stop()
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=24m,mode=700", "tmpfs", self.state], check=True
        )
        self.addCleanup(unmount, self.state)
        self.start()
        self.addCleanup(self.stop)

    def fill(self) -> None:
        """Leave not a byte."""
        with open(self.state / "filler", "wb", buffering=0) as file:
            try:
                while True:
                    file.write(b"x" * 4096)
            except OSError:
                return

    def test_all_verbs(self) -> None:
        """Uploads and launches say that the disk is full; all else works, and so do they later."""
        key, name = self.upload(), self.launch()
        self.fill()
        refused = self.ask("POST", "/config", self.config())
        self.assert_refused(refused, 500, "full")
        refused = self.ask("POST", "/launch", key)
        self.assert_refused(refused, 500, "full")
        self.assertEqual(self.running(), [name])
        self.restart()
        self.assertEqual(self.running(), [name])
        self.assertEqual(self.ask("DELETE", f"/destroy/{name}").status, 200)
        (self.state / "filler").unlink()
        self.assertEqual(self.ask("POST", "/launch", key).status, 200)

    def test_a_layer_that_does_not_fit(self) -> None:
        """A launch whose layer does not fit says so, and leaves nothing of the layer."""
        big = self.mountable("big.tar", script("big", "x" * (40 << 20)))
        refused = self.try_to_launch(mounts=[f"{big} /big READ"])
        self.assert_refused(refused, 500, "full")
        self.assertEqual(len(list(self.state.glob("layers/*[0-9a-f]"))), 1)
        self.assertTrue(listens(self.port))
