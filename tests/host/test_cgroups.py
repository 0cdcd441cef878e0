"""Cgroups: which hierarchies a machine has, and what is written where."""

import errno
import os
from typing import Any

from attrs import evolve

from tests.fakes import MachineTestCase, make_folder
from tests.support import make_spec
from txcontain.host import cgroups as module
from txcontain.host.cgroups import SOCKETS, Cgroups, find_hierarchies, read_figures

OLD_TRAFFIC = "blkio.throttle.io_service_bytes"
VERSION_1 = """\
25 30 0:23 / /sys rw,nosuid - sysfs sysfs rw
31 25 0:26 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro,mode=755
33 31 0:28 / /sys/fs/cgroup/systemd rw,nosuid shared:10 - cgroup cgroup rw,xattr,name=systemd
36 31 0:31 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:13 - cgroup cgroup rw,cpu,cpuacct
37 31 0:32 / /sys/fs/cgroup/memory rw,nosuid shared:14 - cgroup cgroup rw,memory
38 31 0:33 / /sys/fs/cgroup/pids rw,nosuid shared:15 - cgroup cgroup rw,pids
39 31 0:34 / /sys/fs/cgroup/blkio rw,nosuid shared:16 - cgroup cgroup rw,blkio
40 31 0:35 / /sys/fs/cgroup/freezer rw,nosuid shared:17 - cgroup cgroup rw,freezer
"""
UNIFIED = "32 31 0:27 / /sys/fs/cgroup/unified rw,nosuid shared:9 - cgroup2 cgroup2 rw\n"
VERSION_2 = """\
25 30 0:23 / /sys rw,nosuid - sysfs sysfs rw
31 25 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate
41 25 0:36 / /tmp/cgroup-of-another rw - cgroup2 cgroup2 rw
"""
TREES_OF_VERSION_1 = {
    "cpu": "/sys/fs/cgroup/cpu,cpuacct",
    "cpuacct": "/sys/fs/cgroup/cpu,cpuacct",
    "memory": "/sys/fs/cgroup/memory",
    "pids": "/sys/fs/cgroup/pids",
    "io": "/sys/fs/cgroup/blkio",
    "freezer": "/sys/fs/cgroup/freezer",
}
LIMITS = {"memory": "64M", "swap": "16M", "cpus": 1.5, "pids": 50, "io_weight": 200}


class HierarchyTests(MachineTestCase):
    """The three layouts that exist."""

    def find(self, mountinfo: Any) -> Any:
        """What is found in the lines of a mountinfo."""
        return find_hierarchies(mountinfo.splitlines(keepends=True))

    def test_version_1(self) -> None:
        """Version 1 has one hierarchy for each controller, or shared ones; others are not ours."""
        self.assertEqual(self.find(VERSION_1), (TREES_OF_VERSION_1, ""))

    def test_version_2(self) -> None:
        """Version 2 has one for all, the first that is mounted."""
        self.assertEqual(self.find(VERSION_2), ({}, "/sys/fs/cgroup"))

    def test_hybrid(self) -> None:
        """A hybrid has both, and version 1 keeps the controllers."""
        self.assertEqual(
            self.find(VERSION_1 + UNIFIED), (TREES_OF_VERSION_1, "/sys/fs/cgroup/unified")
        )

    def test_none(self) -> None:
        """Without cgroups none are found, whatever else is mounted."""
        self.assertEqual(self.find("25 30 0:23 / /x rw - tmpfs cgroup2 rw,memory\n"), ({}, ""))


class CgroupsTestCase(MachineTestCase):
    """A test on folders that stand for hierarchies."""

    def version1(self) -> Any:
        """A machine with a hierarchy for memory and pids each, and one for cpu and cpuacct."""
        tops = {name: os.path.join(self.folder, name) for name in ("memory", "pids", "cpu", "io")}
        for top in tops.values():
            os.makedirs(top, exist_ok=True)
        return Cgroups({**tops, "cpuacct": tops["cpu"]})

    def version2(self) -> Any:
        """A machine with one for all."""
        controllers = frozenset(["memory", "pids", "cpu", "cpuacct", "io"])
        return Cgroups(dict.fromkeys(controllers, self.folder), controllers)

    def put(self, path: Any, text: str = "") -> None:
        """Make a file that the kernel shows."""
        path = os.path.join(self.folder, path)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as file:
            file.write(text)

    def read(self, path: Any) -> Any:
        """What was written to a file."""
        with open(os.path.join(self.folder, path)) as file:
            return file.read()


class HereTests(CgroupsTestCase):
    """The manager's own groups."""

    def here(self, state: Any, version1: Any = (), version2: str = "") -> Any:
        """What a manager of a state folder finds on a machine of these hierarchies."""
        tops = {name: os.path.join(self.folder, name) for name in version1}
        self.patch(module, "find_hierarchies", lambda _: (dict(tops), version2))
        return Cgroups.here(state)

    def test_version_1(self) -> None:
        """Each state folder has a group of its own in each hierarchy, always the same."""
        names = ["memory", "pids"]
        first, again, second = (self.here(state, names) for state in ("/a", "/a", "/b"))
        self.assertEqual(first.tops, again.tops)
        self.assertNotEqual(first.tops["memory"], second.tops["memory"])
        for path in (*first.tops.values(), *second.tops.values()):
            self.assertEqual(os.listdir(path), [])

    def test_version_2(self) -> None:
        """The controllers that can be switched on for its groups are of version 2."""
        known = self.here("/a", ["x"]).tops["x"]
        group = os.path.join(self.folder, os.path.relpath(known, os.path.join(self.folder, "x")))
        for path in (self.folder, os.path.dirname(group), group):
            self.put(os.path.join(path, "cgroup.subtree_control"))
        # Unlike the kernel's, this file is overwritten from its beginning.
        self.put(os.path.join(group, "cgroup.subtree_control"), "########## memory pids")
        cgroups = self.here("/a", version2=self.folder)
        self.assertEqual(cgroups.unified, {"memory", "pids", "cpuacct", "sockets"})
        self.assertEqual(set(cgroups.tops.values()), {group})
        self.assertEqual(cgroups.monitors, os.path.join(group, "keepers/cgroup.procs"))
        self.assertEqual(cgroups.tokens(), set())

    def test_version_2_without_controllers(self) -> None:
        """Beside version 1, version 2 has a group for each container's sockets."""
        version2 = os.path.join(self.folder, "unified")
        cgroups = self.here("/a", module.CONTROLLERS, version2)
        self.assertEqual((cgroups.unified, cgroups.threads), ({"sockets"}, False))
        joins = cgroups.make("0123")
        folder = os.path.join(cgroups.tops["sockets"], "0123")
        self.assertIn(os.path.join(folder, "cgroup.procs"), joins)
        self.assertEqual(cgroups.number("0123"), os.stat(folder).st_ino)
        cgroups.remove("0123")
        self.assertIsNone(cgroups.number("0123"))

    def test_threads(self) -> None:
        """If a single thread can join, an init does so: that takes no grace period of RCU."""
        group = self.here("/a", module.CONTROLLERS, self.folder).tops["sockets"]
        for path in (os.path.dirname(group), group):
            self.put(os.path.join(path, "cgroup.type"))
        self.assertFalse(self.here("/a", module.CONTROLLERS, self.folder).threads)
        self.put(os.path.join(group, "cgroup.threads"))
        cgroups = self.here("/a", module.CONTROLLERS, self.folder)
        self.assertEqual((cgroups.threads, self.read(f"{group}/cgroup.threads")), (True, "0"))
        self.put(os.path.join(group, "0123/cgroup.type"))
        self.assertIn(os.path.join(group, "0123/cgroup.threads"), cgroups.make("0123"))
        self.assertEqual(self.read(f"{group}/0123/cgroup.type"), "threaded")

    def test_not_ours(self) -> None:
        """A hierarchy without write access is not used."""
        self.put("pids")
        self.assertEqual(set(self.here("/a", ["memory", "pids"]).tops), {"memory"})

    def test_removed_above(self) -> None:
        """If another manager ends, and removes the group above meanwhile, that is made again."""
        makedirs, errors = os.makedirs, [errno.ENODEV, errno.ENOENT]

        def fail_first(*arguments: Any, **options: Any) -> None:
            if errors:
                raise OSError(errors.pop(), "it is gone")
            makedirs(*arguments, **options)

        self.patch(os, "makedirs", fail_first)
        self.assertEqual(set(self.here("/a", ["memory"]).tops), {"memory"})
        self.assertEqual(errors, [])

    def test_give_back(self) -> None:
        """Only its own groups are removed, and only if no container is in them."""
        first, second = (self.here(state, ["memory"]) for state in ("/a", "/b"))
        first.make("0123")
        first.give_back()
        self.assertEqual(first.tokens(), {"0123"})
        first.remove("0123")
        first.give_back()
        self.assertFalse(os.path.exists(first.tops["memory"]))
        second.give_back()
        self.assertEqual(os.listdir(os.path.join(self.folder, "memory")), [])


class GroupTests(CgroupsTestCase):
    """A container's group."""

    def test_make(self) -> None:
        """It is made in each hierarchy once, and joined by the files that are returned."""
        procs = self.version1().make("0123")
        self.assertEqual(
            procs,
            [
                os.path.join(self.folder, name, "0123/tasks")
                for name in ("cpu", "io", "memory", "pids")
            ],
        )
        self.assertTrue(all(os.path.isdir(os.path.dirname(path)) for path in procs))
        (procs,) = self.version2().make("0123")
        self.assertEqual(os.path.basename(procs), "cgroup.procs")

    def test_remove(self) -> None:
        """It is removed from each hierarchy, even if some are gone already."""
        cgroups = self.version1()
        cgroups.make("0123")
        os.rmdir(os.path.join(self.folder, "pids/0123"))
        self.assertEqual(cgroups.remove("0123"), [])
        self.assertEqual(cgroups.tokens(), set())

    def test_busy(self) -> None:
        """A group that still has a process is reported."""
        cgroups = self.version2()
        self.patch(os, "rmdir", lambda path: fail(16))
        self.assertEqual(cgroups.remove("0123"), [os.path.join(self.folder, "0123")])

    def test_tokens(self) -> None:
        """All groups are known, in whatever hierarchy they are."""
        cgroups = self.version1()
        for path in ("cpu/a", "memory/b", "keepers"):
            os.mkdir(os.path.join(self.folder, path))
        self.put("memory/cgroup.procs")
        self.assertEqual(cgroups.tokens(), {"a", "b"})

    def test_kills_that_can_not_be_read(self) -> None:
        """A count that can't be read is 0: it does not hold up the end of a container."""
        groups = self.version1()
        os.makedirs(os.path.join(groups.tops["memory"], "0123", "memory.oom_control"))
        self.assertEqual(groups.out_of_memory_kills("0123"), 0)

    def test_none(self) -> None:
        """A machine without cgroups has none, and nothing fails for that."""
        cgroups = Cgroups()
        self.assertEqual((cgroups.make("x"), cgroups.remove("x")), ([], []))
        self.assertEqual(cgroups.tokens(), set())
        self.assertEqual((cgroups.usage("x"), cgroups.out_of_memory_kills("x")), ({}, 0))


class FreezerTests(CgroupsTestCase):
    """A container that is stopped as a whole."""

    def test_version_2(self) -> None:
        """In version 2 every group can be frozen, and its events say when it is."""
        groups = self.version2()
        groups = evolve(groups, tops={**groups.tops, "sockets": self.folder})
        self.put("0123/cgroup.freeze")
        for freeze, text in ((groups.freeze, "1"), (groups.thaw, "0")):
            freeze("0123")
            self.assertEqual(self.read("0123/cgroup.freeze"), text)
            self.put("0123/cgroup.events", f"populated 1\nfrozen {text}\n")
            self.assertEqual(groups.is_frozen("0123"), text == "1")

    def test_version_1(self) -> None:
        """In version 1 there is a controller for it."""
        groups = Cgroups({"freezer": self.folder})
        self.put("0123/freezer.state")
        for freeze, text in ((groups.freeze, "FROZEN"), (groups.thaw, "THAWED")):
            freeze("0123")
            self.assertEqual(self.read("0123/freezer.state"), text)
            self.assertEqual(groups.is_frozen("0123"), text == "FROZEN")

    def test_the_better_one(self) -> None:
        """The controller of version 1 is left alone if there is version 2."""
        self.patch(module, "find_hierarchies", lambda _: ({"freezer": f"{self.folder}/f"}, ""))
        self.assertEqual(set(Cgroups.here("/a").tops), {"freezer"})
        version1 = {name: f"{self.folder}/{name}" for name in (*module.CONTROLLERS, "freezer")}
        self.patch(module, "find_hierarchies", lambda _: (version1, f"{self.folder}/unified"))
        self.assertEqual(set(Cgroups.here("/a").tops), {*module.CONTROLLERS, "sockets"})

    def test_none(self) -> None:
        """A machine that can't freeze says so, and nothing is frozen there."""
        error = self.assertRaises(OSError, Cgroups().freeze, "0123")
        self.assertEqual(error.filename, "cgroup.freeze")
        self.assertFalse(Cgroups().is_frozen("0123"))


class LimitTests(CgroupsTestCase):
    """What a container may use."""

    def limit(self, cgroups: Any, **limits: Any) -> None:
        """Set limits as a config has them."""
        cgroups.limit("0123", make_spec(limits=limits).limits)

    def test_version_2(self) -> None:
        """In version 2 each limit is written in the form of its file."""
        files = {
            "memory.max": "67108864",
            "memory.swap.max": "16777216",
            "pids.max": "50",
            "cpu.max": "150000 100000",
            "io.weight": "200",
            "io.bfq.weight": "200",
        }
        for name in files:
            self.put(f"0123/{name}")
        cgroups = self.version2()
        self.limit(cgroups, **LIMITS)
        self.assertEqual({name: self.read(f"0123/{name}") for name in files}, files)
        told = {
            line.partition(" ")[0]: line.partition(" ")[2] for line in cgroups.limits_of("0123")
        }
        self.assertEqual(told, files)
        self.assertEqual(cgroups.limits_of("none"), [])

    def test_version_1(self) -> None:
        """So it is in version 1, where swap is limited together with memory."""
        files = {
            "memory/0123/memory.limit_in_bytes": "67108864",
            "memory/0123/memory.memsw.limit_in_bytes": "83886080",
            "cpu/0123/cpu.cfs_quota_us": "150000",
            "pids/0123/pids.max": "50",
            "io/0123/blkio.bfq.weight": "200",
        }
        for name in files:
            self.put(name)
        self.limit(self.version1(), **LIMITS)
        self.assertEqual({name: self.read(name) for name in files}, files)

    def test_missing(self) -> None:
        """A limit without a file on this machine fails by its name, and no file is made."""
        os.mkdir(os.path.join(self.folder, "0123"))
        error = self.assertRaises(OSError, self.limit, self.version2(), memory="64M")
        self.assertEqual(error.filename, "limits.memory, memory.max")
        self.assertRaises(OSError, self.limit, Cgroups(), memory="64M")
        self.assertEqual(os.listdir(os.path.join(self.folder, "0123")), [])

    def test_share_of_the_disk(self) -> None:
        """The weight is written to the files that exist, up to the maximum of each."""
        for version, file, most in (
            (self.version1, "io/0123/blkio.bfq.weight", "1000"),
            (self.version2, "0123/io.bfq.weight", "1000"),
            (self.version2, "0123/io.weight", "10000"),
        ):
            self.folder = make_folder(self)
            self.put(file)
            for weight, text in ((1, "1"), (10_000, most)):
                self.put(file)
                self.limit(version(), io_weight=weight)
                self.assertEqual(self.read(file), text)
            self.assertEqual(len(os.listdir(os.path.dirname(os.path.join(self.folder, file)))), 1)

    def test_no_share_of_the_disk(self) -> None:
        """If no file is there, as without BFQ or with only CFQ, the limit is refused."""
        self.put("io/0123/blkio.weight")
        error = self.assertRaises(OSError, self.limit, self.version1(), io_weight=200)
        self.assertEqual(error.filename, "limits.io_weight, blkio.bfq.weight")
        self.assertEqual(self.read("io/0123/blkio.weight"), "")
        os.mkdir(os.path.join(self.folder, "0123"))
        error = self.assertRaises(OSError, self.limit, self.version2(), io_weight=200)
        self.assertEqual(error.filename, "limits.io_weight, io.weight or io.bfq.weight")

    def test_default(self) -> None:
        """The default limit is set if the machine can; it is no failure if not."""
        Cgroups().make("0123")
        self.assertRaises(OSError, self.limit, Cgroups(), pids=50)
        self.put("0123/pids.max")
        self.version2().make("0123")
        self.assertTrue(self.read("0123/pids.max").isdecimal())

    def test_usage(self) -> None:
        """Both versions give what is used in the same units."""
        for name, text in {
            "memory.current": "4096",
            "memory.peak": "8192",
            "pids.current": "3",
            "cpu.stat": "usage_usec 1500\nuser_usec 1000",
        }.items():
            self.put(f"0123/{name}", f"{text}\n")
        version2 = self.version2().usage("0123")
        self.folder = make_folder(self)
        for name, text in {
            "memory/0123/memory.usage_in_bytes": "4096",
            "memory/0123/memory.max_usage_in_bytes": "8192",
            "pids/0123/pids.current": "3",
            "cpu/0123/cpuacct.usage": "1500000",
        }.items():
            self.put(name, f"{text}\n")
        self.assertEqual(self.version1().usage("0123"), version2)
        self.assertEqual(
            version2, {"memory": 4096, "memory_peak": 8192, "pids": 3, "cpu_usec": 1500}
        )

    def test_traffic(self) -> None:
        """Both versions give what all disks together have read and written."""
        version2 = Cgroups({"io": self.folder}, frozenset({"io"}))
        version1 = Cgroups({"io": self.folder})
        for cgroups, file, text, used in (
            (
                version2,
                "io.stat",
                "8:0 rbytes=1 wbytes=20 rios=5 dbytes=0\n8:16 rbytes=2\n",
                (3, 20),
            ),
            (version2, "io.stat", "", (0, 0)),
            (version2, "io.stat", "8:0 rbytes=x wbytes=x\n", (None, None)),
            (version1, OLD_TRAFFIC, "8:0 Read 1\n8:0 Write 20\n8:16 Read 2\nTotal 23\n", (3, 20)),
            (version1, OLD_TRAFFIC, "Total 0\n", (0, 0)),
        ):
            self.put(f"0123/{file}", text)
            told = cgroups.usage("0123")
            self.assertEqual((told.get("io_read"), told.get("io_written")), used, text)

    def test_waits(self) -> None:
        """How long some processes waited, and all, is told if the kernel counts that."""
        cgroups = Cgroups({SOCKETS: self.folder}, frozenset({SOCKETS}))
        sources = cgroups.sources(["io_waiting_usec", "io_stalled_usec"])
        self.assertEqual(read_figures("0123", sources), {})
        self.put("0123/io.pressure", "some avg10=1.50 total=9\nfull avg10=0.50 total=7\n")
        self.assertEqual(
            read_figures("0123", sources), {"io_waiting_usec": 9, "io_stalled_usec": 7}
        )
        self.put("0123/io.pressure", "some avg10=1.50 total=9\n")
        self.assertEqual(read_figures("0123", sources), {"io_waiting_usec": 9})

    def test_pressure(self) -> None:
        """For how much of the last ten seconds it waited is told, if the kernel counts that."""
        self.put("0123/cpu.pressure", "some avg10=1.50 avg60=0.00 avg300=0.00 total=9\nfull x\n")
        self.put("0123/io.pressure", "")
        cgroups = Cgroups({SOCKETS: self.folder}, frozenset({SOCKETS}))
        self.assertEqual(cgroups.pressure("0123"), {"cpu": 1.5})
        self.assertEqual(Cgroups().pressure("0123"), {})

    def test_version(self) -> None:
        """Which version has the limits is told."""
        self.assertEqual(Cgroups().version, "none")
        self.assertEqual((self.version1().version, self.version2().version), ("1", "2"))

    def test_not_counted(self) -> None:
        """A figure that the machine does not count is left out."""
        self.put("0123/pids.current", "3\n")
        self.put("0123/memory.current", "what")
        self.assertEqual(self.version2().usage("0123"), {"pids": 3})

    def test_out_of_memory(self) -> None:
        """The number of OOM kills is read from either version."""
        self.put("0123/memory.events", "low 0\noom 4\noom_kill 2\n")
        self.assertEqual(self.version2().out_of_memory_kills("0123"), 2)
        self.put("memory/0123/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n")
        self.assertEqual(self.version1().out_of_memory_kills("0123"), 3)
        self.assertEqual(self.version2().out_of_memory_kills("gone"), 0)


def fail(number: int) -> None:
    """As a system call that fails."""
    raise OSError(number, os.strerror(number))
