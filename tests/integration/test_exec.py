"""Commands in real containers: what they are, what they can't, and how they end."""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import json
import os
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.integration.harness import Answer, command_of, processes_of, wait_until
from tests.integration.probes import ProbeCase
from tests.support import needs_networks, needs_user_namespaces

# All that could make a command less tightly held than PID 1; what differs in any case is left out.
LOOK = """
for name in cgroup ipc mnt net pid user uts; do readlink /proc/self/ns/$name; done
cat /proc/self/cgroup /proc/self/limits /proc/self/uid_map /proc/self/oom_score_adj
grep -E '^(Umask|Uid|Gid|Groups|Cap|NoNewPrivs|Seccomp|Sig[ICB]|TracerPid)' /proc/self/status
ls /proc/self/fd | grep -v '^3$'
readlink /proc/self/root
pwd
export -p | grep -v '^export (_|OLDPWD|SHLVL)'
"""


class ExecCase(ProbeCase):
    """A test that runs commands in containers."""

    def exec(self, instance: str, *command: str, **more: Any) -> Answer:
        """Run a command in an instance."""
        path = f"/instances/{instance}/exec"
        return self.ask("POST", path, {"command": list(command), **more})

    def output(self, instance: str, script: str, **more: Any) -> str:
        """What a shell script in an instance writes to stdout, if it goes well."""
        answer = self.exec(instance, "/bin/sh", "-c", script, **more)
        self.assertEqual(answer.status, 200, answer.reason)
        said = answer.json
        self.assertEqual((said["exit"]["reason"], said["stderr"]), ("exit status 0", ""))
        return said["stdout"]

    def sleepers(self) -> list[int]:
        """The processes of `sleep 4711` in containers of this test, as the host sees them."""
        return [pid for pid in processes_of(self.folder) if command_of(pid) == ["sleep", "4711"]]

    def idle(self, **keys: Any) -> str:
        """An instance that does nothing."""
        return self.launch(**keys)


class TightnessTests(ExecCase):
    """A command is held as tightly as PID 1."""

    def compare(self, **keys: Any) -> None:
        """Fail unless a command sees of itself just what a script of PID 1 sees."""
        instance = self.running_inside(LOOK, **keys)
        (first,) = [self.log_of(instance).removesuffix("done\n")]
        self.assertEqual(self.output(instance, LOOK), first)
        self.assertIn("Seccomp:\t2", first)
        self.assertIn("NoNewPrivs:\t1", first)

    def test_as_root(self) -> None:
        """The same namespaces, cgroup, limits, powers, descriptors and variables, for any user."""
        more = {"startup_env": "PORT=;A=1 2", "limits": {"files": 100, "pids": 50}}
        for owner in ("root", "worker", "4711"):
            self.compare(startup_owner=owner, **more)

    @needs_networks
    def test_private_network(self) -> None:
        """The same on a network of its own."""
        self.compare(network="private")

    @needs_user_namespaces
    def test_user_namespace(self) -> None:
        """The same in a user namespace, with a PID 1 that looks after the script."""
        for owner in ("root", "worker"):
            self.compare(user_namespace=True, startup_owner=owner, init=True, network="none")

    def test_as_another(self) -> None:
        """Another user has no powers, and its own home; a folder and variables can be given."""
        instance = self.idle(startup_env={"A": "1", "B": "2"})
        said = self.output(
            instance,
            'id -u; id -G; pwd; echo "$HOME $A $B $C"; grep CapEff /proc/self/status',
            user="worker",
            env=["B=3", "C=${A}"],
            workdir="/etc",
        )
        wanted = ["1000", "1000 2000", "/etc", "/home/worker 1 3 ${A}", "CapEff:\t0000000000000000"]
        self.assertEqual(said.splitlines(), wanted)

    def test_where_it_is(self) -> None:
        """It is in the container's cgroup, with its parent, which no one in there sees."""
        instance = self.idle()
        said = self.output(instance, "echo $PPID; ls -d /proc/[0-9]*; sleep 0.2; echo $$")
        self.assertEqual(said.split()[0], "0")
        seen = set(re.findall(r"/proc/(\d+)", said))
        self.assertLessEqual(len(seen), 3)  # PID 1, the shell and ls


class HostileTests(ExecCase):
    """A container that looks at, or tricks, what joins it."""

    WATCH = """
caught, tried = [], 0
def names(pid):
    "What one who may look into a process sees: its program, and what it has open."
    paths = [f"/proc/{pid}/{name}" for name in ("exe", "cwd", "root")]
    try:
        paths += [f"/proc/{pid}/fd/{fd}" for fd in os.listdir(f"/proc/{pid}/fd")]
    except OSError:
        pass
    for path in paths:
        try:
            yield os.readlink(path)
        except OSError:
            pass
tell(ready=True)
while tried <= 10 or not os.path.exists("/tmp/stop"):
    for pid in os.listdir("/proc"):
        if pid.isdecimal() and pid != "1":
            tried += 1
            caught += [name for name in names(pid) if "python" in name or "socket:" in name]
            try:
                with open(f"/proc/{pid}/mem", "rb"), open(f"/proc/{pid}/exe", "rb") as program:
                    caught += ["memory"] if b"PyMain" in program.read() else []
            except OSError:
                pass
tell(tried=tried, caught=caught[:10])
"""

    def test_looked_into(self) -> None:
        """No process of the container sees what a joining process has open (CVE-2016-9962)."""
        self.look_into()

    @needs_user_namespaces
    def test_looked_into_with_a_user_namespace(self) -> None:
        """Nor if root of the container has all powers over its own ids."""
        self.look_into(user_namespace=True)

    def look_into(self, **keys: Any) -> None:
        """Run commands in a container that looks into them."""
        instance = self.start_probe(self.WATCH, **keys)
        wait_until(lambda: "ready" in self.written(instance), "it watches")
        for _ in range(15):
            self.output(instance, "exit 0")
        self.output(instance, "echo >/tmp/stop")

        def tells() -> bool:
            self.exec(instance, "true")  # for one that is too slow to see them
            return "tried" in self.written(instance)

        wait_until(tells, "it tells")
        told = json.loads(self.written(instance).splitlines()[-1])
        self.assertEqual(told["caught"], [])

    def test_tricks(self) -> None:
        """What the container puts in the way leads nowhere outside of it."""
        setup = """
os.symlink("/proc/self/exe", "/tmp/exe")
os.symlink("/proc/self/fd/3", "/tmp/three")
os.symlink("/proc/1/root", "/tmp/root")
tell(ready=True)
signal.pause()
"""
        instance = self.start_probe(setup, startup_owner="root")
        wait_until(lambda: "ready" in self.written(instance), "it is ready")
        for number in range(3, 12):  # CVE-2024-21626
            answer = self.exec(instance, "/bin/pwd", workdir=f"/proc/self/fd/{number}")
            self.assertEqual(answer.status, 409, answer.body)
        for path in ("/tmp/three", "/tmp/root", "/proc/self/cwd"):
            answer = self.exec(instance, "/bin/pwd", workdir=path)
            self.assertEqual(answer.status, 409, answer.body)
        # The host's Python, run by /proc/self/exe, can't be written (CVE-2019-5736).
        code = "import os; os.open('/proc/self/exe', os.O_WRONLY)"
        answer = self.exec(instance, "/tmp/exe", "-I", "-S", "-c", code)
        self.assertTrue(answer.status == 409 or answer.json["exit"]["status"] != 0, answer.body)

    def test_no_room(self) -> None:
        """In a container that has no process left, a command is refused with a sentence."""
        instance = self.idle(limits={"pids": 1})
        answer = self.exec(instance, "/bin/true")
        self.assertEqual(answer.status, 409, answer.body)
        self.assertIn("as many processes as limits.pids allows", answer.reason)


class RunTests(ExecCase):
    """A command, its output and its end."""

    def test_streams(self) -> None:
        """It reads what it is given, and its streams are kept apart."""
        answer = self.exec(self.idle(), "sh", "-c", "cat; echo err >&2; exit 3", stdin="given\n")
        said = answer.json
        self.assertEqual((said["stdout"], said["stderr"]), ("given\n", "err\n"))
        self.assertEqual((said["exit"]["status"], said["exit"]["signal"]), (3, None))

    def test_signal(self) -> None:
        """A command that a signal has ended says which."""
        instance = self.idle()
        for name in ("KILL", "TERM", "SEGV"):
            number = signal.Signals[f"SIG{name}"].value
            said = self.exec(instance, "sh", "-c", f"kill -{name} $$").json["exit"]
            self.assertEqual((said["status"], said["signal"]), (None, number))
            who = ", by someone else than this manager" if name == "KILL" else ""
            self.assertEqual(said["reason"], f"killed by SIG{name}{who}")

    def test_not_found(self) -> None:
        """A command that is not there, or can't be run, has a type of its own."""
        instance = self.idle()
        for command, more, kind, cause in (
            ("fly", {}, "no-such-program", "there is no fly in the folders of PATH"),
            ("/bin/fly", {}, "no-such-program", "there is no /bin/fly in the container"),
            ("/etc/passwd", {}, "cannot-run", "/etc/passwd is not executable"),
            ("sh", {"user": "bob"}, "cannot-run", "the image knows no user 'bob'"),
            ("sh", {"workdir": "/x"}, "cannot-run", "there is no folder /x"),
        ):
            answer = self.exec(instance, command, **more)
            self.assertEqual((answer.status, answer.json["type"]), (409, f"urn:txcontain:{kind}"))
            self.assertIn(cause, answer.reason)

    def test_bounds(self) -> None:
        """What writes or takes too much is ended, with all of its process group, and says why."""
        instance = self.idle()
        said = self.exec(instance, "sh", "-c", "while :; do echo 0123456789; done").json
        self.assertEqual(len(said["stdout"]), 1 << 20)
        self.assertIn("it wrote 1048576 bytes or more to stdout", said["exit"]["reason"])
        said = self.exec(instance, "sh", "-c", "trap '' HUP; sleep 60; sleep 60", timeout=2).json
        self.assertEqual(said["exit"]["reason"], "it took more than 2 s (killed by SIGKILL)")
        wait_until(lambda: self.sleeping(instance) == 1, "only PID 1 is left")

    def sleeping(self, instance: str) -> int:
        """How many processes of an instance sleep."""
        look = "cat /proc/[0-9]*/cmdline 2>/dev/null; true"  # of zombies it is empty
        said = self.output(instance, look)
        return said.count("sleep\0")

    def test_hung_up(self) -> None:
        """A client that hangs up ends what it has started."""
        instance = self.idle()
        connection = http.client.HTTPConnection("localhost", self.port)
        body = json.dumps({"command": ["sh", "-c", "sleep 60; sleep 60"]})
        connection.request("POST", f"/instances/{instance}/exec", body)
        wait_until(lambda: self.sleeping(instance) == 2, "it runs")
        connection.close()
        wait_until(lambda: self.sleeping(instance) == 1, "it is ended")

    def test_left_behind(self) -> None:
        """What it leaves running delays its answer little, and stays in the container."""
        instance = self.idle()
        before = time.monotonic()
        self.assertEqual(self.output(instance, "sleep 60 & echo done"), "done\n")
        self.assertLess(time.monotonic() - before, 30)
        wait_until(lambda: self.sleeping(instance) == 2, "it goes on")

    def test_ended(self) -> None:
        """In an instance that has ended, or that is not there, nothing is run."""
        instance = self.launch(**self.job("#!/bin/sh\nexit 0\n"))
        self.output_of(instance)
        answer = self.exec(instance, "true")
        self.assertEqual((answer.status, answer.json["type"]), (409, "urn:txcontain:not-running"))
        self.assertIn(f"{instance} has ended", answer.reason)
        self.assertEqual(self.exec("nobody", "true").status, 404)


class LivesTests(ExecCase):
    """What becomes of commands when something else ends."""

    pool = 1

    @contextlib.contextmanager
    def sleeping(self, instance: str) -> Iterator[http.client.HTTPConnection]:
        """A command that sleeps, and its client's connection."""
        connection = http.client.HTTPConnection("localhost", self.port)
        body = json.dumps({"command": ["sleep", "4711"]})
        connection.request("POST", f"/instances/{instance}/exec", body)
        wait_until(self.sleepers, "it runs")
        try:
            yield connection
        finally:
            connection.close()

    def test_instance_ends(self) -> None:
        """With its instance a command ends, and is answered."""
        instance = self.idle()
        with self.sleeping(instance) as connection:
            self.assertEqual(self.ask("DELETE", f"/destroy/{instance}").status, 200)
            said = json.loads(connection.getresponse().read())
            self.assertIsNotNone(said["exit"]["signal"])

    def test_manager_ends(self) -> None:
        """With the manager a command ends, which the journal tells; the container runs on."""
        instance = self.idle()
        with self.sleeping(instance):
            self.manager.terminate()
            self.manager.wait()
            wait_until(lambda: not self.sleepers(), "it has ended")
        self.start()
        self.assertIn(instance, self.running())
        events = self.ask("GET", "/events").body.decode()
        self.assertIn("a command in it was ended: the manager ends", events)

    def test_manager_killed(self) -> None:
        """With a manager that is killed, too."""
        instance = self.idle()
        with self.sleeping(instance):
            self.manager.kill()
            self.manager.wait()
            wait_until(lambda: not self.sleepers(), "it has ended")
        self.start()
        self.assertIn(instance, self.running())
        self.assertEqual(self.output(instance, "echo in"), "in\n")


class CommandCase(ExecCase):
    """A test that types commands of the CLI."""

    def command(self, *words: str, **options: Any) -> Any:
        """What a command of the CLI has written, and its status."""
        whole = [sys.executable, "-m", "txcontain.cli.main", "--url", self.url, *words]
        return subprocess.run(whole, capture_output=True, text=True, timeout=60, **options)

    def type_at(self, *words: str) -> Terminal:
        """A command of the CLI on a terminal."""
        whole = [sys.executable, "-m", "txcontain.cli.main", "--url", self.url, *words]
        terminal = Terminal(whole)
        self.addCleanup(terminal.close)
        return terminal


def has_terminal(folder: Path, *command: str) -> bool:
    """Whether a command in a container has its terminal now: what Ctrl-C is to end.

    :param folder: that of the test
    """
    for pid in processes_of(folder):
        with contextlib.suppress(OSError):  # it has ended
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            group, foreground = fields[2], fields[5]  # proc_pid_stat(5)
            if command_of(pid) == [*command] and group == foreground:
                return True
    return False


class Terminal:
    """A terminal on which a command of the CLI runs, as a person sees it."""

    def __init__(self, command: list[str]) -> None:
        self.screen = ""
        self.master, slave = os.openpty()
        self.resize(30, 100)
        self.before = termios.tcgetattr(slave)
        self.slave = slave
        self.process = subprocess.Popen(
            command,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**os.environ, "TERM": "vt100"},
            # Tests that run in the background are started with SIGINT ignored.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self.master, text.encode())

    def resize(self, rows: int, columns: int) -> None:
        """Make the window as large as this."""
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def shows(self, text: str) -> bool:
        """Whether the screen shows this by now."""
        while select.select([self.master], [], [], 0)[0]:
            self.screen += os.read(self.master, 1 << 16).decode(errors="replace")
        return text in self.screen

    def after(self, text: str) -> str:
        """What it shows after this; nothing as long as it does not show that."""
        return self.screen.partition(text)[2] if self.shows(text) else ""

    def is_raw(self) -> bool:
        """Whether each key is passed on: the command knows what to do with it."""
        return termios.tcgetattr(self.slave) != self.before

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()
        os.close(self.master)
        os.close(self.slave)


class CliTests(CommandCase):
    """exec and shell, typed."""

    def test_pipes(self) -> None:
        """Input, both outputs and the status pass through, whatever the bytes are."""
        instance = self.idle()
        done = self.command(
            "exec", "-i", instance, "sh", "-c", "cat; echo e >&2; exit 3", input="x\0"
        )
        self.assertEqual((done.returncode, done.stdout, done.stderr), (3, "x\0", "e\n"))
        done = self.command(
            "exec", "-u", "worker", "-e", "A=1", instance, "sh", "-c", "id -u; echo $A"
        )
        self.assertEqual((done.returncode, done.stdout), (0, "1000\n1\n"))
        done = self.command("exec", instance, "sh", "-c", "kill -TERM $$")
        self.assertEqual(done.returncode, 128 + signal.SIGTERM)

    def test_statuses(self) -> None:
        """What can't be run has a shell's status, and a sentence."""
        instance = self.idle()
        for words, status, said in (
            ((instance, "fly"), 127, "there is no fly in the folders of PATH"),
            ((instance, "/etc/passwd"), 126, "/etc/passwd is not executable"),
            (("nobody", "ls"), 125, "there is no instance nobody"),
        ):
            done = self.command("exec", *words)
            self.assertEqual((done.returncode, done.stdout), (status, ""))
            self.assertIn(said, done.stderr)

    def test_much(self) -> None:
        """Much goes both ways, and no faster than the other side takes it."""
        instance = self.idle()
        words = [sys.executable, "-m", "txcontain.cli.main", "--url", self.url]
        words += ["exec", "-i", instance, "cat"]
        data = os.urandom(1 << 20) * 8
        done = subprocess.run(words, input=data, capture_output=True, timeout=120)
        self.assertEqual((done.returncode, done.stdout == data), (0, True))

    def test_slow_reader(self) -> None:
        """A client that reads nothing costs the manager no memory."""
        instance = self.idle()
        before = self.memory()
        words = [sys.executable, "-m", "txcontain.cli.main", "--url", self.url]
        words += ["exec", instance, "sh", "-c", "while :; do echo 0123456789abcdef; done"]
        with subprocess.Popen(words, stdout=subprocess.PIPE) as client:
            time.sleep(3)
            used = self.memory() - before
            client.kill()
        self.assertLess(used, 5 << 10)

    def memory(self) -> int:
        """KiB of memory that the manager has."""
        text = Path(f"/proc/{self.manager.pid}/status").read_text()
        return int(re.findall(r"VmRSS:\s*(\d+)", text)[0])

    def test_terminal(self) -> None:
        """A shell has a terminal of the container's own: its keys, its window, its end."""
        instance = self.idle()
        terminal = self.type_at("shell", instance)
        wait_until(lambda: terminal.shows("# "), "the prompt")
        terminal.type("readlink /proc/self/fd/0; echo $TERM\r")
        wait_until(lambda: terminal.shows("/dev/pts/0") and terminal.shows("vt100"), "its terminal")
        terminal.type("trap 'echo changed' WINCH; echo A$((1+1))\r")
        wait_until(lambda: terminal.shows("A2"), "the trap is set")
        terminal.resize(40, 120)
        os.kill(terminal.process.pid, signal.SIGWINCH)
        for _ in range(100):
            terminal.type("\r")
            time.sleep(0.1)
            if terminal.shows("changed\r\n"):
                break
        terminal.type("echo C$((1+1)); cat\r")
        wait_until(lambda: terminal.shows("C2\r\n"), "the change was told")
        wait_until(lambda: has_terminal(self.folder, "cat"), "cat runs")
        terminal.type("\x03")
        wait_until(lambda: terminal.shows("^C"), "the key is shown")
        time.sleep(0.5)
        terminal.type("echo B$((1+1)); exit 3\r")
        wait_until(lambda: terminal.shows("B2"), "Ctrl-C has ended cat only")
        self.assertEqual(terminal.process.wait(30), 3)
        self.assertTrue(terminal.shows("changed\r\n"))
        self.assertEqual(termios.tcgetattr(terminal.slave), terminal.before)

    def test_ctrl_d(self) -> None:
        """Ctrl-D ends a shell; its status is that of its last command."""
        terminal = self.type_at("exec", "-it", self.idle(), "sh")
        wait_until(lambda: terminal.shows("# "), "the prompt")
        terminal.type("(exit 7)\r\x04")
        self.assertEqual(terminal.process.wait(30), 7)

    def test_new_container(self) -> None:
        """run -it gives a command in a new container a terminal, and removes that after it."""
        terminal = self.type_at("run", "--rm", "-it", "small.tar", "sh")
        wait_until(lambda: terminal.shows("# "), "the prompt")
        terminal.type("readlink /proc/self/fd/0; exit 5\r")
        self.assertEqual(terminal.process.wait(30), 5)
        self.assertTrue(terminal.shows("/dev/pts/0"))
        self.assertNotIn("Error", terminal.screen)
        self.assertEqual(self.ask("GET", "/instances").json, {"instances": []})

    def test_killed_client(self) -> None:
        """A client that a signal ends leaves its terminal as it was, and ends its command."""
        instance = self.idle()
        terminal = self.type_at("exec", "-it", instance, "sleep", "4711")
        wait_until(self.sleepers, "it runs")
        wait_until(terminal.is_raw, "the client knows")
        terminal.process.terminate()
        self.assertEqual(terminal.process.wait(30), 128 + signal.SIGTERM)
        self.assertEqual(termios.tcgetattr(terminal.slave), terminal.before)
        wait_until(lambda: not self.sleepers(), "it has ended")

    def test_false_terminal(self) -> None:
        """A container that puts something in place of its terminals gets its own all the same."""
        self.try_false_terminal()

    @needs_user_namespaces
    def test_false_terminal_with_a_user_namespace(self) -> None:
        """Nor does that help root of a user namespace."""
        self.try_false_terminal(user_namespace=True)

    def try_false_terminal(self, **keys: Any) -> None:
        """Run a command on a terminal in a container that has changed its /dev."""
        instance = self.idle(**keys)
        setup = "rm /dev/ptmx /dev/tty; ln -s /etc/passwd /dev/ptmx"
        self.exec(instance, "sh", "-c", f"{setup}; mv /dev/pts /dev/x; rm -r /dev/pts/*")
        terminal = self.type_at("exec", "-it", "-u", "worker", instance, "sh")
        wait_until(lambda: terminal.shows("$ "), "the prompt")
        terminal.type("readlink /proc/self/fd/0; exit\r")
        wait_until(lambda: terminal.shows("/dev/pts/0"), "its terminal")
        terminal.process.wait(30)

    def test_explain(self) -> None:
        """explain --exec prints the script."""
        done = self.command("explain", "--exec", self.idle(), "ls", "-l")
        self.assertTrue(done.stdout.rstrip().endswith("ls -l"), done.stdout + done.stderr)


class ExplainTests(ExecCase):
    """The script that runs a command by hand."""

    SAME = """
for name in cgroup ipc net pid uts; do readlink /proc/self/ns/$name; done
cat /proc/self/cgroup
grep -E '^(Uid|Gid|Groups|Cap|NoNewPrivs)' /proc/self/status
pwd; echo "$HOME $USER $PATH $A"; cat /etc/hostname
"""

    def test_by_hand(self) -> None:
        """Run as root, it runs the command in the container as the manager does."""
        for owner in ("root", "worker"):
            instance = self.idle(startup_owner=owner, startup_env="A=it's", network="none")
            query = "&".join(f"command={word}" for word in ("/bin/sh", "/tmp/look"))
            self.output(instance, "cat >/tmp/look", stdin=self.SAME)
            script = self.ask("GET", f"/instances/{instance}/exec/explain?{query}")
            self.assertEqual(script.status, 200, script.reason)
            done = subprocess.run(["sh"], input=script.body, capture_output=True)
            self.assertEqual(done.stderr.decode(), "")
            answer = self.exec(instance, "/bin/sh", "/tmp/look").json
            self.assertEqual(done.stdout.decode(), answer["stdout"])
