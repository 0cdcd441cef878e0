"""Plans, compared as plain data."""

import marshal
import os
import resource
from shlex import split
from typing import Any

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from tests.support import make_spec
from txcontain.container.facts import MASKED, READ_ONLY, Host, Place
from txcontain.container.plan import (
    CAPABILITIES,
    INIT,
    MONITOR,
    PATH,
    SETTINGS,
    Link,
    Link6,
    Paths,
    VolumePlace,
    common_start,
    make_base_plan,
    make_plan,
    step,
)
from txcontain.images.programs import Program
from txcontain.images.unpacking_plan import make_merging_plan, make_unpacking_plan

FILTER = (b"first", b"last")
MASKS = (("/proc/kcore", False), ("/sys/firmware", True))
HOST = Host("/empty", MASKS, ("/proc/sys",), FILTER, (("msgqueue", 7),))
ALL = [0, 1, 3, 4, 5, 6, 7, 8, 10, 18, 29, 31]

BASE_PLAN = [
    step("unshare", namespaces=["mount", "cgroup"]),
    step("propagation", mode="slave"),
    step("scratch", path="/scratch", size="1m"),
    step("staging", path="/scratch/staging"),
    step("mount", target="/proc", fstype="proc", flags=["nosuid", "nodev", "noexec"]),
    step("read_only_path", path="/proc/sys"),
    step("mask", path="/proc/kcore", source="/dev/null"),
    step(
        "mount", target="/dev", fstype="tmpfs", flags=["nosuid", "noexec"], data="mode=755,size=64k"
    ),
    step("device", path="/dev/null", major=1, minor=3),
    step("device", path="/dev/zero", major=1, minor=5),
    step("device", path="/dev/full", major=1, minor=7),
    step("device", path="/dev/random", major=1, minor=8),
    step("device", path="/dev/urandom", major=1, minor=9),
    step("device", path="/dev/tty", major=5, minor=0),
    step("symlink", path="/dev/ptmx", target="pts/ptmx"),
    step("symlink", path="/dev/fd", target="/proc/self/fd"),
    step("symlink", path="/dev/stdin", target="/proc/self/fd/0"),
    step("symlink", path="/dev/stdout", target="/proc/self/fd/1"),
    step("symlink", path="/dev/stderr", target="/proc/self/fd/2"),
    step(
        "mount",
        target="/dev/pts",
        fstype="devpts",
        flags=["nosuid", "noexec"],
        data="newinstance,ptmxmode=0666,mode=0620,gid=5",
    ),
    step(
        "mount",
        target="/dev/shm",
        fstype="tmpfs",
        flags=["nosuid", "nodev", "noexec"],
        data="mode=1777,size=67108864",
    ),
    step("mount", target="/dev/mqueue", fstype="mqueue", flags=["nosuid", "nodev", "noexec"]),
    step("input", path="/scratch/staging/dev/null"),
    step("limits", most={"msgqueue": 7}),
    step("bounding_set", keep=ALL),
    step("seccomp", program=b"first"),
]

REST = [
    step(
        "root_overlay",
        lower=["/layers/base"],
        upper="/scratch/base-upper",
        work="/scratch/base-work",
        mountpoint="/scratch/root",
        flags=["nosuid", "nodev"],
        sealed=True,
        volatile=True,
    ),
    step("move", source="/scratch/staging/proc", target="/proc"),
    step("move", source="/scratch/staging/dev", target="/dev"),
    step("mount", target="/sys", fstype="sysfs", flags=["ro", "nosuid", "nodev", "noexec"]),
    step("mask", path="/sys/firmware", source="/empty"),
    step(
        "mount", target="/run", fstype="tmpfs", flags=["nosuid", "nodev"], data="mode=755,size=64m"
    ),
    step(
        "mount",
        target="/tmp",
        fstype="tmpfs",
        flags=["nosuid", "nodev"],
        data="mode=1777,size=268435456",
    ),
    step(
        "overlay",
        lower=["/layers/web"],
        upper="/scratch/0-upper",
        work="/scratch/0-work",
        target="/webserver",
        flags=["nosuid", "nodev"],
        sealed=True,
        volatile=True,
    ),
    step(
        "overlay",
        lower=["/layers/home"],
        upper="/private/1-upper",
        work="/private/1-work",
        target="/webserver/home",
        flags=["nosuid", "nodev"],
        sealed=False,
        volatile=True,
    ),
    step("file", path="/etc/resolv.conf", content="nameserver 127.0.0.53\n"),
    step(
        "file", path="/etc/hosts", content="127.0.0.1 localhost\n::1 localhost\n127.0.1.1 web-1\n"
    ),
    step("file", path="/etc/hostname", content="web-1\n"),
    step("output", stdout="stdout", stderr="stderr"),
    step("propagation", mode="private"),
    step("seal"),
    step("pivot_root", path="/scratch/root"),
    step("hostname", name="web-1"),
    step("close_descriptors"),
    step("user", owner="www-data", capabilities=ALL),
    step("no_new_privileges"),
    step("seccomp", program=b"last"),
    step(
        "exec",
        path="/webserver/tiny.sh",
        arguments=[],
        environment=[
            ("PATH", (PATH,)),
            ("TERM", ("dumb",)),
            ("PORT", ("80",)),
            ("A", ("", "PORT", "")),
            ("PATH", ("/x:", "PATH", "")),
        ],
        key="startup_script",
    ),
]


PATHS = Paths(
    "/layers/base", [], "/private", "/scratch", HOST, resolv_conf="nameserver 127.0.0.53\n"
)


def plan_of(*layers: str, link: Link | None = None, **changes: Any) -> list[tuple[Any, ...]]:
    """The plan of a container whose config is changed in these keys."""
    paths = evolve(PATHS, mounts=layers, link=link)
    return make_plan(make_spec(**changes), paths, "web-1")


class Containers(SynchronousTestCase):
    """The plan of a container."""

    maxDiff = None

    def test_the_whole(self) -> None:
        """The example's plan is exactly this, in this order."""
        plan = plan_of(
            "/layers/web",
            "/layers/home",
            mounts=["webserver.tar /webserver/ READ", "homedir.tar /webserver/home READWRITE"],
            startup_script="/webserver/tiny.sh",
            startup_owner="www-data",
            startup_env="PORT=80;A=${PORT};PATH=/x:${PATH}",
        )
        self.assertEqual(plan, BASE_PLAN + REST)

    def test_base_plan(self) -> None:
        """Every plan begins with the steps that a warm init does in advance."""
        base_plan = make_base_plan(HOST, "/scratch")
        self.assertEqual(base_plan, BASE_PLAN)
        every: list[dict[str, Any]] = [
            {},
            {"writable_root": True, "limits": {"disk": "1M", "files": 9}},
        ]
        for changes in every:
            self.assertEqual(plan_of(**changes)[: len(base_plan)], base_plan)

    def test_a_command(self) -> None:
        """A command takes the script's place, with its arguments, in its working folder."""
        plan = plan_of(command=["redis-server", "--port", "7"], workdir="/data", init=True)
        environment = [("PATH", (PATH,)), ("TERM", ("dumb",))]
        program = {"path": "redis-server", "arguments": ["--port", "7"], "key": "command"}
        self.assertEqual(plan[-1], step("exec", **program, environment=environment))
        self.assertEqual(
            [op for op, _ in plan[-5:]],
            ["no_new_privileges", "workdir", "seccomp", "look_after", "exec"],
        )

    def test_small_files(self) -> None:
        """Files and secrets are in a tmpfs of their own; of secrets the plan has only the place."""
        spec = make_spec(
            files=[{"path": "/a", "content": "x"}, {"path": "/b", "from": "b.txt", "mode": "0600"}],
            secrets=["db /c", "key /d 0440 www"],
            startup_owner="worker",
        )
        paths = Paths("/base", [], "/private", "/scratch", mountables="/m", secrets="/s")
        plan = make_plan(spec, paths, "web-1")
        at = plan.index(step("scratch", path="/scratch/files", size="16m"))
        places = [f"/scratch/files/{i}" for i in range(4)]
        file, copy = {"path": "/a", "mode": 0o644, "owner": "root"}, {"path": "/b", "mode": 0o600}
        self.assertEqual(
            plan[at + 1 : at + 5],
            [
                step("add_file", **file, content="x", place=places[0]),
                step("add_copy", **copy, owner="root", source="/m/b.txt", place=places[1]),
                step(
                    "add_copy",
                    path="/c",
                    mode=0o400,
                    owner="worker",
                    source="/s/db",
                    place=places[2],
                ),
                step(
                    "add_copy", path="/d", mode=0o440, owner="www", source="/s/key", place=places[3]
                ),
            ],
        )
        early = common_start(plan, plan)
        self.assertEqual(early[-1], plan[at + 1], "what may change is read at the launch only")

    def test_no_script(self) -> None:
        """Without a script the container idles, in the same environment."""
        environment = [("PATH", (PATH,)), ("TERM", ("dumb",)), ("A", ("1",))]
        self.assertEqual(plan_of(startup_env="A=1")[-1], step("idle", environment=environment))

    def test_a_writable_root(self) -> None:
        """A writable root has its own layer in the instance, and is not sealed."""
        (root,) = [each for op, each in plan_of(writable_root=True) if op == "root_overlay"]
        self.assertEqual((root["upper"], root["sealed"]), ("/private/base-upper", False))

    def test_volatile(self) -> None:
        """What is written survives a power cut only if a restart would read it."""
        for restart in ("no", "on-failure", "always"):
            plan = plan_of("/layers/web", mounts=["web.tar /w READWRITE"], restart=restart)
            volatile = {each["volatile"] for op, each in plan if op.endswith("overlay")}
            self.assertEqual(volatile, {restart == "no"})

    def test_files_in_memory(self) -> None:
        """The image's files in /run and /tmp stay visible, wherever these lead."""
        paths = evolve(PATHS, run=Place("/var/run", True), tmp=Place(), ids=1 << 20)
        plan = make_plan(make_spec(), paths, "web-1")
        memory = [each for each in plan if "memory" in str(each) or "/tmp" in str(each)]
        self.assertEqual(
            memory,
            [
                step("scratch", path="/scratch/memory-var-run", size="64m"),
                step(
                    "overlay",
                    lower=["/scratch/layers/base/var/run"],
                    upper="/scratch/memory-var-run/own-upper",
                    work="/scratch/memory-var-run/own-work",
                    target="/var/run",
                    flags=["nosuid", "nodev"],
                    sealed=False,
                    volatile=True,
                ),
            ],
        )

    def test_one_below_the_other(self) -> None:
        """If /run is below /tmp, /tmp is mounted first."""
        paths = evolve(PATHS, run=Place("/tmp/run"))
        plan = make_plan(make_spec(), paths, "web-1")
        targets = [each["target"] for op, each in plan if op == "mount" and "size" in str(each)]
        self.assertEqual(targets[-2:], ["/tmp", "/tmp/run"])

    def test_limits(self) -> None:
        """The limit on the disk comes before its first use, the one on files before the exec."""
        plain, plan = plan_of(), plan_of(limits={"disk": "1M", "files": 100, "memory": "1G"})
        added = [each for each in plan if each not in plain]
        self.assertEqual(
            added,
            [
                step("scratch", path="/private/disk", size="1048576"),
                step("limits", most={"nofile": 100}),
            ],
        )
        self.assertEqual([each for each in plan if each in plain], plain)
        ops = [op for op, _ in plan]
        self.assertLess(plan.index(added[0]), ops.index("root_overlay"))
        self.assertLess(plan.index(added[1]), ops.index("user"))

    def test_a_network_of_its_own(self) -> None:
        """A container without a network reaches only itself, and has no name server."""
        plain, plan = plan_of(), plan_of(network="none")
        nothing = "# There is no network, and so no name server.\n"
        self.assertEqual(
            [each for each in plan if each not in plain],
            [
                step("unshare", namespaces=["net"]),
                step("loopback"),
                *[step("setting", path=path, value=value) for path, value in SETTINGS.items()],
                step("file", path="/etc/resolv.conf", content=nothing),
            ],
        )
        resolver = step("file", path="/etc/resolv.conf", content=PATHS.resolv_conf)
        left = [each for each in plain if each != resolver]
        self.assertEqual([each for each in plan if each in plain], left)

    def test_names(self) -> None:
        """If the host has no resolv.conf, the image keeps its own."""
        plan = make_plan(make_spec(), evolve(PATHS, resolv_conf=""), "web-1")
        paths = [each["path"] for op, each in plan if op == "file"]
        self.assertEqual(paths, ["/etc/hosts", "/etc/hostname"])

    def test_a_private_network(self) -> None:
        """The link is asked for early and used late; the gateway is the name server too."""
        link = Link("10.0.0.2", "255.255.0.0", "10.0.0.1")
        none, plan = plan_of(network="none"), plan_of(network="private", link=link)
        hosts = "127.0.0.1 localhost\n::1 localhost\n10.0.0.2 web-1\n"
        names = "nameserver 10.0.0.1\nsearch .\n"
        addresses = {"address": "10.0.0.2", "netmask": "255.255.0.0", "gateway": "10.0.0.1"}
        self.assertEqual(
            [each for each in plan if each not in none],
            [
                step("ask_for_link"),
                step("file", path="/etc/resolv.conf", content=names),
                step("file", path="/etc/hosts", content=hosts),
                ("link", addresses),
            ],
        )
        v6 = Link6("fd00::2", 64, "fd00::1")
        both = plan_of(network="private", link=evolve(link, v6=v6))
        said = {"address": "fd00::2", "length": 64, "gateway": "fd00::1"}
        self.assertEqual([each for each in both if each not in plan], [("link6", said)])
        ops = [op for op, _ in plan]
        self.assertLess(ops.index("ask_for_link"), ops.index("root_overlay"))
        self.assertLess(ops.index("file"), ops.index("seal"))
        self.assertLess(ops.index("link"), ops.index("user"))

    def test_an_init(self) -> None:
        """The init stays as PID 1 just before the exec; without a script it is not needed."""
        plain, plan = plan_of(startup_script="/x"), plan_of(startup_script="/x", init=True)
        self.assertEqual(plan, [*plain[:-1], step("look_after"), plain[-1]])
        self.assertEqual(plan_of(init=True), plan_of())
        self.assertEqual(common_start(plan, plan), plain[:-1])

    def test_disk_size(self) -> None:
        """A disk of its own comes before its first use, and only at the launch."""
        plain, plan = plan_of(writable_root=True), plan_of(writable_root=True, disk_size="16M")
        flags = ["nosuid", "nodev"]
        disk = step(
            "disk", path="/private/disk", image="/private/disk.img", size=1 << 24, flags=flags
        )
        where = plan.index(disk)
        self.assertEqual(common_start(plan, plan), plan[:where])
        self.assertEqual(plan[:where], plain[:where])
        overlay = dict(plan)["root_overlay"]
        self.assertEqual(overlay["upper"], "/private/disk/base-upper")
        self.assertFalse(overlay["volatile"])  # so that it can be mounted again after a power cut

    def test_volume_with_a_bound(self) -> None:
        """Its file system is mounted once, only at the launch, and then what is in it."""
        volumes = {"pg": VolumePlace("/volumes/pg", "1.json", 1 << 24)}
        spec = make_spec(volumes=["pg /a", "pg /b/c READ"])
        plan = make_plan(spec, evolve(PATHS, volumes=volumes), "web-1")
        own = [one for one in plan if one[0] in ("disk", "volume")]
        lock, flags, disk = "/volumes/pg/1.json", ["nosuid", "nodev"], "/scratch/volumes/pg"
        at = {"source": disk, "lock": lock}
        image = {"image": "/volumes/pg/disk.img", "size": 1 << 24, "lock": lock}
        self.assertEqual(
            own,
            [
                step("disk", path=disk, **image, flags=flags),
                step("volume", **at, target="/a", flags=flags),
                step("volume", **at, target="/b/c", flags=["ro", *flags]),
            ],
        )
        self.assertEqual(common_start(plan, plan), plan[: plan.index(own[0])])

    def test_sizes(self) -> None:
        """/tmp is made as large as the config says; /dev/shm exists already and is resized."""
        plain, plan = plan_of(), plan_of(shm_size="1G", tmp_size="1M")
        self.assertEqual(
            [each for each in plan if each not in plain],
            [
                step(
                    "mount",
                    target="/tmp",
                    fstype="tmpfs",
                    flags=["nosuid", "nodev"],
                    data="mode=1777,size=1048576",
                ),
                step(
                    "resize",
                    path="/dev/shm",
                    size="1073741824",
                    flags=["nosuid", "nodev", "noexec"],
                ),
            ],
        )
        self.assertEqual(plan_of(shm_size="64M"), plain)

    def test_no_mount_hides_another(self) -> None:
        """Mounts follow the config's order, but each comes before those below it."""
        mounts = ["c.tar /a/b/c READ", "z.tar /z READWRITE", "a.tar /a READ", "b.tar /a/b READ"]
        layers = ("/layers/c", "/layers/z", "/layers/a", "/layers/b")
        plan = plan_of(*layers, mounts=mounts)
        steps = [each for op, each in plan if op == "overlay"]
        self.assertEqual([each["target"] for each in steps], ["/z", "/a", "/a/b", "/a/b/c"])
        lower = [each["lower"] for each in steps]
        self.assertEqual(lower, [["/layers/z"], ["/layers/a"], ["/layers/b"], ["/layers/c"]])
        self.assertEqual(steps[0]["upper"], "/private/1-upper")

    def test_a_layer_for_each_mount(self) -> None:
        """Too few or too many layers are an error: no mount is left out."""
        self.assertRaises(ValueError, plan_of, mounts=["x.tar /x READ"])
        self.assertRaises(ValueError, plan_of, "/layers/x")

    def test_plain_data(self) -> None:
        """A plan passes through the socket to the init unchanged."""
        plan = plan_of("/layers/x", mounts=["x.tar /x READWRITE"], startup_env="A=é")
        self.assertEqual(marshal.loads(marshal.dumps(plan)), plan)

    def test_no_stop(self) -> None:
        """A launch has no step in which it waits for a person: that it could costs it nothing."""
        for keys in ({}, {"network": "private"}, {"init": True}, {"tty": True}):
            link = Link("10.0.0.2", "255.255.0.0", "10.0.0.1")
            self.assertNotIn("pause", [op for op, _ in plan_of(link=link, **keys)])

    def test_capabilities(self) -> None:
        """The numbers are those of <linux/capability.h>; none reaches devices or raw sockets."""
        self.assertEqual(list(CAPABILITIES.values()), ALL)
        self.assertFalse({"MKNOD", "NET_RAW", "SYS_ADMIN", "SYS_PTRACE"} & set(CAPABILITIES))

    def test_the_programs_exist(self) -> None:
        """The init and the monitor lie where the plan says."""
        self.assertTrue(os.path.isfile(INIT))
        self.assertTrue(os.path.isfile(MONITOR))

    def test_the_host(self) -> None:
        """Only what this machine has is hidden or write-protected."""
        host = Host.here("/empty", FILTER)
        for path, is_folder in host.masked:
            self.assertIn(path, MASKED)
            self.assertEqual(os.path.isdir(path), is_folder)
        self.assertEqual(list(host.read_only), [path for path in READ_ONLY if os.path.exists(path)])
        self.assertIn("/proc/sys", host.read_only)
        self.assertEqual((host.empty, host.seccomp), ("/empty", FILTER))

    def test_shares(self) -> None:
        """A quarter of what is counted for a whole user stays for the host, however little."""
        for most, shares in (
            ((7, 7), {"msgqueue": 5, "sigpending": 5, "memlock": 5}),
            (
                (resource.RLIM_INFINITY,) * 2,
                {"msgqueue": 614400, "sigpending": 49152, "memlock": 6 << 20},
            ),
        ):
            self.patch(resource, "getrlimit", lambda which, most=most: most)
            self.assertEqual(dict(Host.here("/empty", FILTER).limits), shares)


class Unpacking(SynchronousTestCase):
    """The plan that unpacks a tarball."""

    def setUp(self) -> None:
        tar = Program("/usr/bin/tar", "/usr/lib/ld.so", ("/usr/lib/libc.so", "/usr/lib/libacl.so"))
        xz = Program("/usr/bin/xz", "/usr/lib/ld.so", ("/usr/lib/libc.so", "/opt/liblzma.so"))
        self.plan = make_unpacking_plan(
            "/images/base.tar.xz", "/layers/new", "/scratch", "/.x", tar, xz
        )

    def test_the_order(self) -> None:
        """tar runs last, in a root of its own, with few powers left."""
        ops = list(dict.fromkeys(op for op, _ in self.plan))
        self.assertEqual(
            ops,
            [
                "unshare",
                "propagation",
                "scratch",
                "root_folder",
                "mount",
                "bind",
                "input",
                "output_as_error",
                "bounding_set",
                "pivot_root",
                "limits",
                "close_descriptors",
                "user",
                "no_new_privileges",
                "seccomp",
                "exec",
            ],
        )
        self.assertIn(step("bounding_set", keep=[0, 1, 3, 4]), self.plan)

    def test_all_but_the_layer_is_read_only(self) -> None:
        """The root is the new layer; all that is bound into it is read-only."""
        (root,) = [arguments for op, arguments in self.plan if op == "root_folder"]
        self.assertEqual(root["source"], "/layers/new")
        binds = [arguments for op, arguments in self.plan if op == "bind"]
        self.assertEqual(
            {bind["target"]: bind["source"] for bind in binds},
            {
                "/.x/opt": "/opt",
                "/.x/usr/bin": "/usr/bin",
                "/.x/usr/lib": "/usr/lib",
                "/.x/tarball": "/images/base.tar.xz",
            },
        )
        self.assertEqual([bind for bind in binds if "ro" not in bind["flags"]], [])

    def test_the_programs(self) -> None:
        """tar and the decompressor are started by the loader that they are linked for."""
        last = self.plan[-1][1]
        words = [last["path"], *last["arguments"]]
        tar = "/.x/usr/lib/ld.so --library-path /.x/usr/lib /.x/usr/bin/tar".split()
        self.assertEqual(words[:4], tar)
        xz = "/.x/usr/lib/ld.so --library-path /.x/usr/lib:/.x/opt /.x/usr/bin/xz"
        self.assertIn(f"--use-compress-program={xz}", words)
        self.assertIn("--file=/.x/tarball", words)

    def test_not_compressed(self) -> None:
        """A tarball that is not compressed needs only tar; one without a loader is run itself."""
        static = Program("/usr/bin/tar")
        plan = make_unpacking_plan("/base.tar", "/layers/new", "/scratch", "/.x", static)
        last = plan[-1][1]
        self.assertEqual(last["path"], "/.x/usr/bin/tar")
        self.assertNotIn("--use-compress-program", str(last))

    def test_merging(self) -> None:
        """Layers are merged in the same jail: an overlay of them is in the tarball's place."""
        tar, sh = Program("/usr/bin/tar"), Program("/bin/sh")
        folders = "/layers/new", "/scratch", "/.x"
        one = make_unpacking_plan("/base.tar", *folders, tar)
        plan = make_merging_plan(["/layers/2", "/layers/1"], *folders, tar, sh)
        said = dict(plan)
        self.assertEqual(said["overlay"]["lower"], ["/layers/2", "/layers/1"])
        self.assertEqual(
            (said["overlay"]["target"], said["overlay"]["sealed"]), ("/.x/layers", True)
        )
        self.assertEqual(said["exec"]["path"], "/.x/bin/sh")
        pack, unpack = said["exec"]["arguments"][1].split(" | ")
        self.assertTrue(pack.startswith("/.x/usr/bin/tar --create"))
        self.assertTrue(pack.endswith("--directory=/.x/layers ."))
        self.assertEqual(split(unpack)[2:], one[-1][1]["arguments"][1:])
        own = ("bind", "overlay", "seal", "input", "exec")
        jails = ([each for each in steps if each[0] not in own] for steps in (plan, one))
        self.assertEqual(*jails)


class InAdvance(SynchronousTestCase):
    """What may be done before there is a launch."""

    def test_same_plan(self) -> None:
        """All steps may be done early, except the exec or idle."""
        for plan in (BASE_PLAN + REST, plan_of()):
            self.assertEqual(common_start(plan, plan), plan[:-1])

    def test_another_plan(self) -> None:
        """Only what two plans have in common is done early."""
        other = [*REST[:3], step("mount"), *REST[4:]]
        self.assertEqual(common_start(REST, other), REST[:3])

    def test_of_the_managers(self) -> None:
        """No address and no range of ids is taken early, nor is anything done that needs one."""
        plan = plan_of(network="private")
        unshare = step("unshare", namespaces=["net"])
        self.assertEqual(common_start(plan, plan), [*BASE_PLAN, unshare])
        plan = make_plan(make_spec(), evolve(PATHS, ids=65536), "web-1")
        self.assertEqual(common_start(plan, plan), BASE_PLAN)
