"""Commands in containers of a real swarm of one node: scripts/swarm-tests."""

from __future__ import annotations

import functools
import gzip
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import termios
from pathlib import Path
from typing import Any

from tests.certificates import Authority
from tests.integration.harness import Answer, command_of, free_port, listens, wait_until
from tests.integration.in_swarm import SwarmCase
from tests.integration.tarballs import file, folder
from tests.integration.test_exec import Terminal
from tests.integration.test_files import tar_of


def sleepers(seconds: str) -> list[int]:
    """The processes of `sleep SECONDS` in the namespace of this test."""
    pids = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()]
    return [pid for pid in pids if command_of(pid) == ["sleep", seconds]]


class ExecCase(SwarmCase):
    """A test of commands in an instance."""

    def setUp(self) -> None:
        """Launch one that idles."""
        super().setUp()
        self.instance = self.launch(startup_env="A=1")

    def exec(self, *command: str, **more: Any) -> Answer:
        """Run a command in it."""
        path = f"/instances/{self.instance}/exec"
        return self.ask("POST", path, {"command": list(command), **more})

    def words(self, *words: str) -> list[str]:
        """A command of the CLI."""
        return [sys.executable, "-m", "txcontain.cli.main", "--url", self.url, *words]

    def command(self, *words: str, **options: Any) -> Any:
        """What it has written, and its status."""
        return subprocess.run(
            self.words(*words), capture_output=True, text=True, timeout=60, **options
        )

    def type_at(self, *words: str) -> Terminal:
        """The same on a terminal."""
        terminal = Terminal(self.words(*words))
        self.addCleanup(terminal.close)
        return terminal


class ExecTests(ExecCase):
    """POST /instances/INSTANCE/exec."""

    def test_streams(self) -> None:
        """The answer has both outputs and the status of a command, which has read its input."""
        said = self.exec("sh", "-c", "cat; echo e >&2; exit 3", stdin="in\n").json
        self.assertEqual((said["stdout"], said["stderr"]), ("in\n", "e\n"))
        self.assertEqual((said["exit"]["status"], said["exit"]["reason"]), (3, "exit status 3"))

    def test_as_whom(self) -> None:
        """It is the config's user, at home, with its variables; or another, with others, too."""
        script = 'id -u; id -G; pwd; echo "$HOME $USER $A $B"'
        plain = self.exec("sh", "-c", script).json
        self.assertEqual(plain["stdout"], "0\n0\n/root\n/root root 1 \n", plain)
        other = self.exec("sh", "-c", script, user="worker", env=["A=2", "B=3"], workdir="/etc")
        said = other.json["stdout"]
        self.assertEqual(said, "1000\n1000 2000\n/etc\n/home/worker worker 2 3\n", other.json)
        group = self.exec("id", "-G", user="worker:others").json
        self.assertEqual(group["stdout"].split()[0], "2001")

    def test_hostile_accounts(self) -> None:
        """Where home is a file, or the accounts are too long, all else works."""
        self.instance = self.launch(writable_root=True)
        entry = "echo x:x:77:77::/etc/passwd:/bin/sh >>/etc/passwd"
        self.assertEqual(self.exec("sh", "-c", entry).json["exit"]["status"], 0)
        at_home = self.exec("sh", "-c", "pwd; echo $HOME", user="x").json
        self.assertEqual(at_home["stdout"], "/\n/etc/passwd\n", at_home)
        double = "cat /etc/passwd /etc/passwd >/etc/twice; mv /etc/twice /etc/passwd"
        much = f"cat /bin/sh >>/etc/passwd; for _ in 1 2 3 4 5 6 7 8 9 10; do {double}; done"
        self.assertEqual(self.exec("sh", "-c", much).json["exit"]["status"], 0)
        answer = self.exec("pwd", user="x")
        self.assertEqual(
            (answer.status, json.loads(answer.body)["type"]), (409, "urn:txcontain:cannot-run")
        )
        self.assertEqual(self.exec("sh", "-c", "pwd").json["stdout"], "/root\n")

    def test_refused(self) -> None:
        """What can't be run is refused as on one host, and the instance runs on."""
        for command, more, status, kind in (
            (["/nothing"], {}, 409, "no-such-program"),
            (["nothing"], {}, 409, "no-such-program"),
            (["/etc/passwd"], {}, 409, "cannot-run"),
            (["id"], {"user": "nobody-knows"}, 409, "cannot-run"),
            (["id"], {"workdir": "/nowhere"}, 409, "cannot-run"),
        ):
            answer = self.exec(*command, **more)
            self.assertEqual(answer.status, status, (command, more, answer.body))
            problem = json.loads(answer.body)
            self.assertEqual(problem["type"], f"urn:txcontain:{kind}", problem)
        gone = self.ask("POST", "/instances/nobody/exec", {"command": ["id"]})
        self.assertEqual(gone.status, 404)
        self.assertEqual(self.running(), [self.instance])

    def test_too_long(self) -> None:
        """A command that takes longer than it may is ended, and its exit says so."""
        answer = self.exec("sleep", "4713", timeout=1)
        self.assertEqual(answer.status, 200, answer.reason)
        self.assertIn("it took more than 1 s", answer.json["exit"]["reason"])
        self.assertEqual(sleepers("4713"), [])

    def test_over(self) -> None:
        """Where nothing runs any more, no command is run, and the answer says why."""
        over = self.launch(**self.job("#!/bin/sh\nexit 0\n"))
        wait_until(lambda: self.running() == [self.instance], "it has ended")
        answer = self.ask("POST", f"/instances/{over}/exec", {"command": ["id"]})
        self.assertEqual(answer.status, 409)
        self.assertIn(f"{over} has ended", answer.reason)

    def test_explain(self) -> None:
        """Its explanation is a command of Docker's."""
        done = self.command("explain", "--exec", self.instance, "ls", "-l")
        self.assertRegex(done.stdout, r"docker exec --interactive [0-9a-f]{12} ls -l\n$")


class LaunchTests(ExecCase):
    """Launches by name."""

    def test_newest(self) -> None:
        """A config's name is enough to launch it, and the instance is told."""
        name = self.ask("GET", f"/instances/{self.instance}").json["name"]
        done = self.command("launch", name)
        self.assertEqual(done.returncode, 0, done)
        told = done.stdout.removeprefix("Success: ").strip()
        self.assertEqual(self.running(), [self.instance, told])


class DiffTests(ExecCase):
    """What an instance has changed."""

    def test_changes(self) -> None:
        """What was added and removed since its start is told, by Docker and by the CLI."""
        job = self.job("#!/bin/sh\necho x >/etc/added\nrm /etc/passwd\necho done\nsleep 1000\n")
        instance = self.launch(**job, writable_root=True)
        self.says(instance, "done")
        done = self.command("diff", instance)
        self.assertIn("A /etc/added\n", done.stdout, done)
        self.assertIn("D /etc/passwd\n", done.stdout)


class StatsTests(ExecCase):
    """What an instance uses."""

    def test_used(self) -> None:
        """Docker's figures are told in our words: memory, its limit, and time that grows."""
        busy = self.launch(**self.job("#!/bin/sh\nwhile :; do :; done\n", limits={"memory": "64M"}))

        def used() -> Any:
            return self.ask("GET", f"/instances/{busy}/stats").json

        first = used()
        wait_until(lambda: used()["cpu_usec"] > first["cpu_usec"], "its time has grown")
        self.assertGreater(first["memory"], 0)
        self.assertEqual((first["pids"], first["limits"]["memory"]), (1, 64 << 20))
        told = self.ask("GET", "/stats").json["stats"]
        self.assertEqual([one["instance"] for one in told], [self.instance, busy])
        done = self.command("stats", "--once")
        self.assertRegex(done.stdout, rf"{busy} +[0-9.]+ % ", done)
        self.assertEqual(done.stderr, "")


class TerminalLogTests(ExecCase):
    """The log of an instance that has a terminal."""

    def test_lines(self) -> None:
        """Its lines are told as they are, with times if that is asked for."""
        job = self.job("#!/bin/sh\necho one\necho two >&2\nsleep 1000\n", tty=True)
        instance = self.launch(**job)
        said = self.says(instance, "two")
        self.assertEqual(said, "one\r\ntwo\r\n")
        timed = self.says(instance, "two", "?timestamps=1").splitlines()
        self.assertRegex(timed[1], r"^20[0-9-]{8}T[0-9:]{8}\.[0-9]+Z two$")


class TlsTests(ExecCase):
    """A manager that reaches the same Docker over TLS."""

    def scratch(self) -> Path:
        """A folder that is gone after the test."""
        made = tempfile.TemporaryDirectory()
        self.addCleanup(made.cleanup)
        return Path(made.name)

    def ask_another(self, *options: str) -> None:
        """Have another manager, with these options, be the one that is asked."""
        state = self.scratch()
        port = free_port()
        words = [str(self.twistd), "-n", "--pidfile=", "containerd-lite", "--pool", "0"]
        words += ["--state", str(state / "state"), "--port", str(port), "--engine", "swarm"]
        words += ["--base-images", str(self.folder / "base_images"), "--mountables"]
        words += [str(self.folder / "mountables"), "--registry", "127.0.0.1:5000", *options]
        with (state / "log").open("wb") as log:
            manager = subprocess.Popen(words, stdout=log, stderr=log)
        self.addCleanup(manager.wait, 60)
        self.addCleanup(manager.terminate)
        wait_until(lambda: listens(port), "it listens")
        self.addCleanup(setattr, self, "url", self.url)
        self.url = f"http://127.0.0.1:{port}"

    def test_certificates(self) -> None:
        """With a certificate all works as by the socket, also a command's end of input."""
        docker = ["--docker", "https://127.0.0.1:2376", "--docker-certificates"]
        self.ask_another(*docker, str(self.folder / "certificates"))
        self.assertEqual(self.running(), [self.instance])
        said = self.exec("sh", "-c", "cat; echo e >&2; exit 3", stdin="in\n").json
        self.assertEqual((said["stdout"], said["stderr"]), ("in\n", "e\n"))
        self.assertEqual(said["exit"]["status"], 3)

    def test_not_trusted(self) -> None:
        """A Docker whose certificate is another CA's is asked for nothing, and why is told."""
        folder = self.scratch()
        authority = Authority(folder)
        certificate, key = authority.issue("client")
        for name, path in (("ca", authority.certificate), ("cert", certificate), ("key", key)):
            (folder / f"{name}.pem").write_bytes(Path(path).read_bytes())
        docker = ["--docker", "https://127.0.0.1:2376", "--docker-certificates"]
        self.ask_another(*docker, str(folder))
        self.assert_refused(self.ask("GET", "/list"), 503, "certificate verify failed")


class CliTests(ExecCase):
    """exec and shell, typed."""

    def test_pipes(self) -> None:
        """Input, both outputs and the status pass through, whatever the bytes are."""
        words = ["exec", "-i", self.instance, "sh", "-c", "cat; echo e >&2; exit 3"]
        done = self.command(*words, input="x\0")
        self.assertEqual((done.returncode, done.stdout, done.stderr), (3, "x\0", "e\n"))
        done = self.command("exec", self.instance, "sh", "-c", "kill -TERM $$")
        self.assertEqual(done.returncode, 128 + signal.SIGTERM)

    def test_statuses(self) -> None:
        """What can't be run has a shell's status, and a sentence."""
        for words, status, said in (
            ((self.instance, "fly"), 127, "there is no fly in the container"),
            ((self.instance, "/etc/passwd"), 126, "/etc/passwd can't be run in the container"),
            (("nobody", "ls"), 125, "there is no instance nobody"),
        ):
            done = self.command("exec", *words)
            self.assertEqual((done.returncode, done.stdout), (status, ""), done)
            self.assertIn(said, done.stderr)

    def test_much(self) -> None:
        """Much goes both ways, and nothing of it is lost."""
        data = os.urandom(1 << 20) * 8
        words = self.words("exec", "-i", self.instance, "cat")
        done = subprocess.run(words, input=data, capture_output=True, timeout=120)
        self.assertEqual((done.returncode, done.stdout == data), (0, True), done.stderr)

    def test_short_on_terminal(self) -> None:
        """What has ended before its terminal gets a size has run, and what it says is shown."""
        for _ in range(12):
            terminal = self.type_at("exec", "-it", self.instance, "sh", "-c", "echo hello")
            wait_until(functools.partial(terminal.shows, "hello\r\n"), "what it says")
            self.assertEqual(terminal.process.wait(30), 0)

    def test_terminal(self) -> None:
        """A shell has a terminal: its keys, its window, its end."""
        terminal = self.type_at("shell", self.instance)
        wait_until(lambda: terminal.shows("# "), "the prompt")
        terminal.type("readlink /proc/self/fd/0; trap 'echo changed' WINCH; echo A$((1+1))\r")
        wait_until(lambda: terminal.shows("/dev/pts/") and terminal.shows("A2"), "its terminal")
        terminal.resize(40, 120)
        os.kill(terminal.process.pid, signal.SIGWINCH)

        def changed() -> bool:
            terminal.type("\r")  # dash carries out a trap after the next line
            return terminal.shows("changed\r\n")

        wait_until(changed, "the change of its window was told")
        terminal.type("echo C$((1+1)); cat\r")
        wait_until(lambda: terminal.shows("C2\r\n"), "cat runs")
        terminal.type("typed\r")
        wait_until(lambda: terminal.shows("typed\r\ntyped\r\n"), "cat reads what is typed")
        terminal.type("\x03")
        wait_until(lambda: terminal.shows("^C"), "the key is shown")
        wait_until(lambda: terminal.after("^C").count("# "), "cat has ended")
        terminal.type("echo B$((1+1)); exit 3\r")
        wait_until(lambda: terminal.shows("B2"), "the shell has not")
        self.assertEqual(terminal.process.wait(30), 3)
        self.assertEqual(termios.tcgetattr(terminal.slave), terminal.before)

    def test_killed_client(self) -> None:
        """A client that a signal ends leaves no command behind."""
        terminal = self.type_at("exec", "-it", self.instance, "sleep", "4711")
        wait_until(lambda: sleepers("4711"), "it runs")
        wait_until(terminal.is_raw, "the client knows")
        terminal.process.terminate()
        self.assertEqual(terminal.process.wait(30), 128 + signal.SIGTERM)
        wait_until(lambda: not sleepers("4711"), "it has ended")


class CopyTests(ExecCase):
    """Files in and out."""

    def setUp(self) -> None:
        """Launch one with a writable root, and a READWRITE mount."""
        super().setUp()
        self.mountable("home.tar", folder("home"), file("home/kept", "old"))
        keys: Any = {"writable_root": True, "mounts": ["home.tar /data READWRITE"]}
        self.instance = self.launch(**keys)
        self.path = f"/instances/{self.instance}/files?path="

    def read(self, path: str) -> dict[str, tarfile.TarInfo]:
        """What is at a path, by its names in the stream."""
        answer = self.ask("GET", self.path + path)
        self.assertEqual(answer.status, 200, answer.reason)
        self.stream = tarfile.open(fileobj=io.BytesIO(answer.body))  # noqa: SIM115 (it is kept)
        return {member.name: member for member in self.stream.getmembers()}

    def told(self, command: str) -> str:
        """What a command in it writes."""
        return str(self.exec("sh", "-c", command).json["stdout"])

    def listed(self, path: str) -> tuple[str, str, str]:
        """The mode, the owner and the size of a file in it."""
        mode, _, owner, _, size, *_ = self.told(f"ls -ln {path}").split()
        return mode, owner, size

    def test_in_and_out(self) -> None:
        """What goes in is there, root's or whose it is, and comes out with its names."""
        big = b"x" * (10 << 20)
        answer = self.ask("PUT", f"{self.path}/data", tar_of(new=big, kept=b"newer"))
        self.assertEqual((answer.status, answer.json), (200, {"path": "/data"}), answer.reason)
        self.assertEqual(self.listed("/data/new"), ("-rw-r-----", "0", str(len(big))))
        self.assertEqual(self.told("cat /data/kept"), "newer")
        self.assertEqual(self.ask("PUT", f"{self.path}/data&owners=1", tar_of(own=b"")).status, 200)
        self.assertEqual(self.listed("/data/own")[1], "1234")
        found = self.read("/data")
        self.assertEqual({*found}, {"data", "data/new", "data/kept", "data/own"})
        self.assertEqual(self.stream.extractfile(found["data/new"]).read(), big)
        self.assertEqual({*self.read("/data/.")}, {".", "./new", "./kept", "./own"})
        self.assertEqual([*self.read("/data/kept")], ["kept"])
        one = self.ask("GET", f"{self.path}/data/new&stat=1").json
        self.assertEqual(
            (one["name"], one["kind"], one["mode"], one["size"]), ("new", "file", 0o640, 10 << 20)
        )

    def test_links(self) -> None:
        """No link leads out of the container, neither one of its own nor one of a stream."""
        outside = self.folder / "outside"
        outside.mkdir()
        self.addCleanup(shutil.rmtree, outside)
        self.told(f"ln -s {outside} /data/link; ln -s ../../../../../..{outside} /data/more")
        for name in ("link", "more"):
            answer = self.ask("PUT", f"{self.path}/data/{name}/", tar_of(a=b"1"))
            self.assertIn(answer.status, (404, 409), answer.reason)
            self.assertEqual(
                self.ask("GET", f"{self.path}/data/{name}&stat=1").json["kind"], "link"
            )
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w") as tar:
            for name, target in (("sub", str(outside)), ("up", "../" * 20 + str(outside))):
                member = tarfile.TarInfo(name)
                member.type, member.linkname = tarfile.SYMTYPE, target
                tar.addfile(member)
                member = tarfile.TarInfo(f"{name}/file")
                tar.addfile(member)
            for name in ("../../escaped", f"/{outside}/absolute"):
                tar.addfile(tarfile.TarInfo(name))
        self.ask("PUT", f"{self.path}/data", stream.getvalue())
        self.assertEqual(os.listdir(outside), [])
        self.assertIn(self.instance, self.running())

    def test_devices(self) -> None:
        """Devices are left out, and a note says so."""
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w") as tar:
            device = tarfile.TarInfo("disk")
            device.type, device.devmajor = tarfile.BLKTYPE, 8
            tar.addfile(device)
            tar.addfile(tarfile.TarInfo("plain"))
        answer = self.ask("PUT", f"{self.path}/data", stream.getvalue())
        self.assertEqual((answer.status, answer.notes), (200, ["left out: 1 device nodes"]))
        self.assertEqual(self.told("ls /data"), "kept\nplain\n")

    def test_refused(self) -> None:
        """What is not there, in memory, read-only or no tar is refused with a sentence."""
        other = self.launch()
        rows: Any = (
            ("GET", "/data/none", None, 404, "there is no /data/none in the container"),
            ("PUT", "/data/none", tar_of(a=b""), 404, "there is no /data/none"),
            ("PUT", "/data/kept", tar_of(a=b""), 404, "/data/kept"),
            ("GET", "/tmp/x", None, 409, "is in memory"),
            ("PUT", "/run", tar_of(a=b""), 409, "is in memory"),
            ("PUT", "/data", gzip.compress(tar_of(a=b"")), 409, "is no tar stream"),
            ("PUT", "/data", b"no tar" * 1000, 409, "is no tar stream"),
        )
        for method, path, body, status, said in rows:
            answer = self.ask(method, self.path + path, body)
            self.assertEqual(answer.status, status, (method, path, answer.reason))
            self.assertIn(said, answer.reason)
        path = f"/instances/{other}/files?path=/etc"
        answer = self.ask("PUT", path, tar_of(big=b"x" * (20 << 20)))
        self.assertEqual(answer.status, 409, answer.reason)
        self.assertIn("it can't be written there", answer.reason)

    def test_cp(self) -> None:
        """`txcontain cp` copies a folder in, and out again, as it was."""
        own = self.folder / "own"
        (own / "sub").mkdir(parents=True)
        self.addCleanup(shutil.rmtree, own)
        (own / "sub" / "a").write_text("a")
        os.chmod(own / "sub" / "a", 0o750)
        os.symlink("sub/a", own / "link")
        done = self.command("cp", str(own), f"{self.instance}:/data/in")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertEqual(self.told("cat /data/in/link"), "a")
        self.assertEqual(self.listed("/data/in/sub/a")[0], "-rwxr-x---")
        out = self.folder / "out"
        done = self.command("cp", f"{self.instance}:/data/in", str(out))
        self.addCleanup(shutil.rmtree, out)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertEqual((out / "sub/a").read_text(), "a")
        self.assertEqual((out / "sub/a").stat().st_mode & 0o777, 0o750)
        self.assertEqual(os.readlink(out / "link"), "sub/a")
        shown = self.command("cp", f"{self.instance}:/data/in/sub/a", "-")
        self.assertIn("a", shown.stdout)


class AttachTests(ExecCase):
    """The terminal of an instance."""

    def setUp(self) -> None:
        """Launch one whose program is a shell."""
        super().setUp()
        self.instance = self.launch(tty=True, command=["sh"], startup_env="PS1=% ")

    def attach(self, *words: str) -> Terminal:
        """Be attached to it."""
        terminal = self.type_at("attach", *words, self.instance)
        wait_until(terminal.is_raw, "it is attached")
        return terminal

    def test_attach(self) -> None:
        """Two are attached: both see all, either types; one leaves, and the end is the other's."""
        first, second = self.attach(), self.attach("--detach-keys", "ctrl-x,d")
        second.type("echo A$((1+1)) $(stty size 2>&1)\r")
        for terminal in first, second:
            wait_until(functools.partial(terminal.shows, "A2"), "both see what one has typed")
        first.type("cat\r")
        wait_until(lambda: second.shows("cat\r\n"), "cat runs")
        first.type("\x03")
        wait_until(lambda: "% " in second.after("^C"), "Ctrl-C has ended it")
        first.type("echo \x10\x11")
        self.assertEqual(first.process.wait(30), 0)
        self.assertIn(self.instance, self.running())
        second.type("\x15echo C$((1+1)) \x18e\r")
        wait_until(lambda: second.shows("C2"), "other keys are passed on")
        second.type("exit 4\r")
        self.assertEqual(second.process.wait(30), 4, second.screen)


class RunTests(ExecCase):
    """The command `run`."""

    def test_attended(self) -> None:
        """What a command writes is shown, and its status is that of `run`."""
        script = "echo out; echo err >&2; exit 3"
        done = self.command("run", self.base_image, "sh", "-c", script)
        self.assertEqual((done.returncode, done.stdout, done.stderr), (3, "out\n", "err\n"))

    def test_terminal(self) -> None:
        """On a terminal, all is there from the start, and what is typed is read."""
        terminal = self.type_at("run", "-it", self.base_image, "sh")
        terminal.type("echo A$((1+1)); exit 4\r")
        wait_until(lambda: terminal.shows("A2"), "it was typed ahead")
        self.assertEqual(terminal.process.wait(30), 4, terminal.screen)

    def test_piped(self) -> None:
        """With -i a command reads what comes, and its container is gone after it."""
        before = self.running()
        done = self.command("run", "-i", self.base_image, "cat", input="in")
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "in", ""))
        self.assertEqual(self.running(), before)

    def test_signals(self) -> None:
        """`run` passes signals on, and `kill` sends one."""
        script = "trap 'echo got it; exit 7' TERM; echo runs; while :; do sleep 0.1; done"
        words = self.words("run", self.base_image, "sh", "-c", script)
        for by_run in (True, False):
            before = self.running()
            running = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
            self.addCleanup(running.stdout.close)
            self.addCleanup(running.kill)
            self.assertEqual(running.stdout.readline(), "runs\n")
            if by_run:
                running.send_signal(signal.SIGTERM)
            else:
                (instance,) = set(self.running()) - set(before)
                self.assertEqual(self.command("kill", "-s", "TERM", instance).returncode, 0)
            self.assertEqual(running.communicate(timeout=60)[0], "got it\n")
            self.assertEqual(running.returncode, 7)
