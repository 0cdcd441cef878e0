"""The plan of a command that joins a container, and how it is explained."""

import subprocess
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.support import make_spec
from txcontain.container.exec_plan import (
    Command,
    Joined,
    Size,
    make_exec_base_plan,
    make_exec_plan,
    read_command,
)
from txcontain.container.explain import explain_exec
from txcontain.container.facts import Host
from txcontain.container.plan import Paths, Plan, begins_with, make_plan
from txcontain.errors import InvalidData

HOST = Host(seccomp=(b"first", b"last"), limits=(("memlock", 5),))
JOINED = Joined(4711, 99, ["/cgroup/a/tasks", "/cgroup/b/tasks"])
LS = Command(("ls", "-l"))


def plan_of(command: Command = LS, joined: Joined = JOINED, **changes: Any) -> Plan:
    """The plan of a command in a container whose config is changed in these keys."""
    return make_exec_plan(make_spec(**changes), HOST, joined, command)


class PlanTests(SynchronousTestCase):
    """What the plan does."""

    def test_as_tight_as_pid_1(self) -> None:
        """Each step by which PID 1 gives up a power is in the plan of a command too."""
        for ids in (None, 1 << 20):
            config: dict[str, Any] = {
                "startup_owner": "www",
                "limits": {"files": 100},
                "startup_env": "A=1",
            }
            paths = Paths("/b", [], "/p", "/s", HOST, ids=ids)
            pid1 = make_plan(make_spec(**config), paths, "web")
            joined = Joined(4711, 99, [], user_namespace=ids is not None)
            steps = plan_of(joined=joined, **config)
            powers = "limits bounding_set seccomp close_descriptors user no_new_privileges".split()
            wanted = [step for step in pid1 if step[0] in powers]
            self.assertEqual([step for step in steps if step[0] in powers], wanted)

    def test_namespaces(self) -> None:
        """It enters those that the container has for itself."""
        for network, user, more in (
            ("host", False, []),
            ("none", False, ["net"]),
            ("private", True, ["net", "user"]),
        ):
            steps = plan_of(joined=Joined(1, 2, [], user), network=network)
            (entered,) = [arguments["namespaces"] for op, arguments in steps if op == "join"]
            self.assertEqual(entered, ["mount", "pid", "uts", "ipc", "cgroup", *more])

    def test_the_command(self) -> None:
        """It runs with the container's variables and its own, as another user, in a folder."""
        command = read_command(
            {"command": ["ls"], "user": "bob", "env": ["A=${B}"], "workdir": "/srv"}, Size(1, 2)
        )
        steps = dict(plan_of(command, startup_env="A=1;PORT=80"))
        self.assertEqual(steps["user"]["owner"], "bob")
        self.assertEqual(steps["workdir"], {"path": "/srv"})
        self.assertEqual(steps["terminal"], {"rows": 1, "columns": 2})
        names = [name for name, _ in steps["exec"]["environment"]]
        self.assertEqual(names, ["PATH", "TERM", "A", "PORT", "A"])
        self.assertEqual(steps["exec"]["environment"][-1], ("A", ("${B}",)))  # as it stands

    def test_its_beginning(self) -> None:
        """What a warm init does in advance is the beginning of every plan."""
        for steps in (plan_of(), plan_of(user_namespace=True, network="none")):
            self.assertTrue(begins_with(steps, make_exec_base_plan(HOST)))

    def test_refused(self) -> None:
        """A command is checked, key by key, with the words that a config is checked with."""
        for values, why in (
            ({}, "the key 'command' is missing"),
            ({"command": "ls"}, "command must be a list such as"),
            ({"command": ["ls"], "user": "a b"}, "user must be USER or USER:GROUP"),
            ({"command": ["ls"], "env": ["A"]}, "a variable in a list of env is"),
            ({"command": ["ls"], "workdir": "a"}, "workdir must be an absolute path"),
            ({"command": ["ls"], "colour": 1}, "an exec has no key 'colour'"),
        ):
            error = self.assertRaises(InvalidData, read_command, values)
            self.assertIn(why, str(error))


class ExplainTests(SynchronousTestCase):
    """The plan as a shell script."""

    def test_the_shell_can_read_it(self) -> None:
        """sh finds no mistake in it, whatever the words are."""
        command = Command(("it's", "$(x)\n", "`y`"), "www:adm", (("A", ("'\n",)),), "/a b", Size())
        script = explain_exec(plan_of(command, network="none"))
        checked = subprocess.run(["sh", "-n"], input=script.encode(), capture_output=True)
        self.assertEqual((checked.returncode, checked.stderr), (0, b""))

    def test_what_it_enters(self) -> None:
        """It joins the cgroups, takes the root, and enters the other namespaces."""
        script = explain_exec(plan_of(joined=Joined(4711, 99, ["/c/tasks"], user_namespace=True)))
        self.assertIn("echo 0 >/c/tasks\n", script)
        self.assertIn("cd /proc/4711/root\n", script)
        self.assertIn("nsenter --target 4711 --pid --uts --ipc --cgroup --user ", script)
