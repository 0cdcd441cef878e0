"""The plan of a program of the host that visits the files of a container."""

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.support import make_spec
from txcontain.container.exec_plan import make_exec_base_plan
from txcontain.container.facts import Host, Place
from txcontain.container.plan import CAPABILITIES, Paths, Plan, VolumePlace, begins_with, make_plan
from txcontain.container.shell_steps import Shell
from txcontain.container.visit_plan import BORROWED, POWERS, Visit, plan_of_ended, plan_of_running

HOST = Host("/empty", (("/proc/kcore", False),), ("/proc/sys",), (b"first", b"last"))
VISIT = Visit("/etc", "hosts", ["/bin/tar"], [f"{BORROWED}/bin/tar", "-c"], most_output=7)


def running(*, mapped: bool = False) -> Plan:
    """The plan for a container that runs."""
    return plan_of_running(HOST, 4711, 99, VISIT, mapped=mapped)


def ended(*, writing: bool = False, ids: int | None = None, **config: Any) -> Plan:
    """The plan for one that does not, with this in its config."""
    config = {"mounts": ["a.tar /a READ", "b.tar /b READWRITE"], **config}
    paths = Paths(
        "/base", ["/l/a", "/l/b"], "/private", "/s", HOST, ids=ids, run=Place("/run", True)
    )
    own = make_plan(make_spec(**config), paths, "web-1")
    return plan_of_ended(HOST, own, VISIT, mapped=ids is not None, writing=writing)


def overlays(plan: Plan) -> dict[str, dict[str, Any]]:
    """The overlays of a plan, by their targets."""
    ops = ("root_overlay", "overlay")
    return {step.get("target", "/"): step for op, step in plan if op in ops}


class VisitTests(SynchronousTestCase):
    """What the plans do."""

    def test_powers(self) -> None:
        """It has fewer powers than root of the container, no network, and bounds of its own."""
        self.assertLess(set(POWERS), set(CAPABILITIES.values()))
        for plan in (running(), running(mapped=True), ended(), ended(ids=1 << 20)):
            steps = dict(plan)
            self.assertEqual(steps["user"], {"owner": "0", "capabilities": POWERS})
            self.assertEqual(steps["limits"]["most"], {"cpu": 1800, "as": 1 << 30, "fsize": 7})
            left = [name for op, step in plan if op == "unshare" for name in step["namespaces"]]
            self.assertEqual(left, ["mount", "uts", "ipc", "net", "pid"])
            ops = [op for op, _ in plan]
            self.assertEqual(ops[-5:], ["user", "no_new_privileges", "visit", "seccomp", "exec"])
            self.assertNotIn("join_cgroups", ops)  # it may be frozen
            self.assertTrue(begins_with(plan, make_exec_base_plan(HOST)))

    def test_running(self) -> None:
        """Only a container's mounts are joined; what is mounted then is seen by nobody else."""
        for mapped in (False, True):
            steps = running(mapped=mapped)
            ops = [op for op, _ in steps]
            self.assertEqual(dict(steps)["join"]["namespaces"], ["mount"])
            order = ["lend", "join", "unshare", "propagation", "borrow", "fork", "user"]
            self.assertEqual([ops.index(op) for op in order], sorted(map(ops.index, order)))
            self.assertEqual("enter_user_namespace" in ops, mapped)

    def test_ended_to_read(self) -> None:
        """Who reads an ended container changes nothing: all is mounted below a layer of ours."""
        for writable_root in (False, True):
            found = overlays(ended(writable_root=writable_root))
            self.assertEqual(found["/b"]["lower"], ["/private/1-upper", "/l/b"])
            self.assertEqual(found["/a"]["lower"], ["/l/a"])
            wanted = ["/private/base-upper", "/base"] if writable_root else ["/base"]
            self.assertEqual(found["/"]["lower"], wanted)
            for step in found.values():
                self.assertTrue(step["sealed"])
                self.assertTrue(step["upper"].startswith("/s/"), step)

    def test_ended_to_write(self) -> None:
        """To write to it takes its own layers, in a way that the kernel mounts them once more."""
        found = overlays(ended(writing=True))["/b"]
        self.assertEqual((found["lower"], found["upper"]), (["/l/b"], "/private/1-upper"))
        self.assertEqual((found["sealed"], found["volatile"]), (False, False))
        self.assertNotEqual(found["work"], "/private/1-work")

    def test_memory(self) -> None:
        """What was in memory is gone: there is what the image has, and nobody can write to it."""
        found = overlays(ended(writing=True, limits={"disk": "1M"}))
        for target, lower in (("/b", "/l/b"), ("/run", "/base/run")):
            self.assertEqual((found[target]["lower"], found[target]["sealed"]), ([lower], True))

    def test_disk(self) -> None:
        """A disk of its own is mounted again, and only to read if nothing is written."""
        for writing in (False, True):
            steps = dict(ended(writing=writing, disk_size="16M"))
            self.assertEqual(steps["disk"]["image"], "/private/disk.img")
            self.assertEqual("ro" in steps["disk"]["flags"], not writing)

    def test_disk_of_a_volume(self) -> None:
        """One that others may have mounted is mounted as they have it, and before its volume."""
        volumes = {"pg": VolumePlace("/v", "1.json", 1 << 24)}
        paths = Paths("/base", [], "/private", "/s", HOST, volumes=volumes)
        own = make_plan(make_spec(mounts=[], volumes=["pg /pg"]), paths, "web-1")
        visiting = plan_of_ended(HOST, own, VISIT, mapped=False, writing=False)
        kept = [step for step in own if step[0] in ("disk", "volume")]
        self.assertEqual([step for step in visiting if step in kept], kept)

    def test_nothing_else(self) -> None:
        """No process of the container, no network and no device is made again."""
        ops = {op for op, _ in ended(ids=1 << 20, network="none", init=True)}
        self.assertEqual(ops & {"device", "ask_for_link", "setting", "look_after", "output"}, set())

    def test_in_words(self) -> None:
        """Each step can be said in shell."""
        for plan in (running(mapped=True), ended()):
            shell = Shell()
            for op, arguments in plan:
                self.assertIsInstance(getattr(shell, op)(**arguments), list)
