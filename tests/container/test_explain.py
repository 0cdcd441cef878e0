"""The plan as a shell script: as text, and run for real."""

import marshal
import os
import re
import shutil
import socket
import subprocess
import sys
from inspect import getmembers, isfunction
from typing import Any

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from tests.support import make_layer, make_spec, needs_root
from txcontain.container import init
from txcontain.container.explain import Around, Group, explain
from txcontain.container.facts import Host
from txcontain.container.plan import INIT, Link, Link6, Paths, VolumePlace, make_plan
from txcontain.container.seccomp import compile_filters
from txcontain.container.shell_steps import Shell
from txcontain.errors import InvalidData
from txcontain.images.programs import Program
from txcontain.images.unpacking_plan import make_unpacking_plan

PATHS = Paths("/base", ["/potato"], "/private", "/scratch", Host("/empty"))
PROBE = """\
#!/bin/sh
echo "pid $$, working in $(pwd), argument $0"
read -r name < /proc/sys/kernel/hostname
echo "hostname $name"
for path in /file /data/file /shared/file /proc/sys/kernel/hostname; do
    (echo x > $path) 2>/dev/null && echo "writes to $path" || echo "can't write to $path"
done
for descriptor in /proc/$$/fd/*; do echo "$descriptor"; done
for device in /dev/*; do [ -w $device ] && echo "writable $device"; done
export -p
while read -r line; do echo "$line"; done < /proc/self/mountinfo
while read -r line; do echo "$line"; done < /proc/self/status
"""
# Of /proc/self/status: counters, and what the script says that it can't do.
DIFFERS = r"Vm|Rss|\w+_ctxt|Mems|Cpus|Seccomp|Speculation|SigQ"
PASSWD = "root:x:0:0:root:/root:/bin/sh\nwww:x:33:34:www:/data:/bin/sh\n4711:x:0:0::/:/bin/sh\n"
GROUP = "root:x:0:\nadm:x:4:other,www,4711\nno:x:5:wwwother\nwww:x:34:\n"


def script_of(**changes: Any) -> str:
    """The script of a container whose config is changed in these keys."""
    changes = {"mounts": ["potato.tar /webserver/potato READ"], **changes}
    return explain(make_plan(make_spec(**changes), PATHS, "web-1"))


class AsText(SynchronousTestCase):
    """What the script says."""

    def test_every_op_is_explained(self) -> None:
        """Every op of the init has its words in the script."""
        ops = [name for name, _ in getmembers(init.Container, isfunction) if name[0] != "_"]
        self.assertEqual([op for op in ops if not getattr(Shell, op).__doc__], [])

    def test_every_step_is_numbered(self) -> None:
        """The comments number the steps as a failed launch does, without a gap."""
        plan = make_plan(make_spec(), Paths("/b", [], "/p", "/s"), "web-1")
        numbers = re.findall(r"^# (\d+)(?:-(\d+))?: (\w+)$", explain(plan), re.M)
        counted = [
            (number, op)
            for first, last, op in numbers
            for number in range(int(first), int(last or first) + 1)
        ]
        self.assertEqual(counted, [(i, op) for i, (op, _) in enumerate(plan, 1)])

    def test_the_shell_can_read_it(self) -> None:
        """sh finds no mistake in the script, nor in the part that runs as PID 1."""
        script = script_of(startup_script="/it's a script", startup_env="A='\";B=$(x)`y`\\")
        inner = script.split("<<'CONTAINER'\n")[1].split("\nCONTAINER\n) ")[0]
        for text in (script, inner):
            checked = subprocess.run(["sh", "-n"], input=text.encode(), capture_output=True)
            self.assertEqual((checked.returncode, checked.stderr), (0, b""))

    def test_namespaces_come_first(self) -> None:
        """All namespaces, those of the init and of the plan, are made by one command."""
        (line,) = [line for line in script_of().splitlines() if "unshare --pid" in line]
        wanted = "--pid --fork --kill-child --uts --ipc --mount --cgroup"
        self.assertIn(wanted, line)

    def test_read_mounts_are_sealed_last(self) -> None:
        """READ mounts become read-only once all mount points are made; READWRITE ones never do."""
        read_only = "mount -o remount,bind,ro,nosuid,nodev "
        script = script_of()
        self.assertLess(
            script.index('upperdir="$scratch"/memory/0-upper'),
            script.index(f'{read_only}"$root"\n'),
        )
        self.assertIn(f'{read_only}"$root"/webserver/potato\n', script)
        script = script_of(mounts=["potato.tar /webserver/potato READWRITE"])
        self.assertNotIn(f'{read_only}"$root"/webserver/potato\n', script)
        self.assertIn("upperdir=/private/0-upper", script)

    def test_volatile(self) -> None:
        """An overlay is as volatile as the instance's."""
        script = script_of(mounts=["potato.tar /webserver/potato READWRITE"])
        self.assertIn("workdir=/private/0-work,volatile overlay", script)
        self.assertNotIn(",volatile", script_of(restart="always"))

    def test_a_scratch_of_its_own(self) -> None:
        """What the instance writes, the script writes to a scratch of its own."""
        mounts = ["potato.tar /webserver/potato READWRITE"]
        plan = make_plan(make_spec(mounts=mounts, disk_size="16M"), PATHS, "web-1")
        script = explain(plan, Around("/private", Group(["/c"], [(("/c", "max"), "7")])))
        self.assertEqual(re.findall('/private|[^"]/scratch', script), [])
        self.assertIn('upperdir="$scratch"/own/disk/0-upper,', script)
        self.assertIn('[ ! -e /c/"$hand"/max ] || echo 7 >/c/"$hand"/max\n', script)

    def test_comments(self) -> None:
        """What each step is for is a sentence, with the page of a manual that tells more."""
        for name, method in getmembers(Shell, isfunction):
            if name[0] != "_" and name != "path":
                sentence = re.split(r"\.(?:\s|$)", str(method.__doc__))[0]
                self.assertRegex(sentence, r"\w\([1-8]\)|\w\([1-8]\),|rst\)", name)

    def test_paths_of_overlays(self) -> None:
        """A mark that separates an overlay's options does not in a path, as in the init's mount."""
        paths = evolve(PATHS, mounts=["/a,b"], private="/c:d\\e")
        spec = make_spec(mounts=["potato.tar /data READWRITE"])
        script = explain(make_plan(spec, paths, "web-1"))
        layers = [init.escaped(path) for path in ("/a,b", "/c:d\\e/0-upper")]
        self.assertIn("lowerdir='{}',upperdir='{}',workdir=".format(*layers), script)

    def test_volumes(self) -> None:
        """A volume is filled once and mounted; a folder of the host is mounted as it is."""
        paths = evolve(PATHS, mounts=[], volumes={"pg": VolumePlace("/volumes/pg", "1.json")})
        spec = make_spec(volumes=["pg /pg", "/srv/www /www READ"])
        script = explain(make_plan(spec, paths, "web-1"))
        self.assertIn("data=/volumes/pg/data\n", script)
        self.assertIn('[ -d "$data" ] || cp -a "$root"/pg "$data"\n', script)
        self.assertIn('mount -o bind "$data" "$root"/pg\n', script)
        self.assertIn('mount -o remount,bind,nosuid,nodev "$root"/pg\n', script)
        self.assertIn('bind /srv/www "$root"/www ro,nosuid,nodev\n', script)

    def test_a_volume_with_a_bound(self) -> None:
        """Its file system is mounted, if it is made, by the device that others have (mount(8))."""
        place = VolumePlace("/volumes/pg", "1.json", 1 << 24)
        paths = evolve(PATHS, mounts=[], volumes={"pg": place})
        script = explain(make_plan(make_spec(volumes=["pg /pg"]), paths, "web-1"))
        at, file = '"$scratch"/memory/volumes/pg', "/volumes/pg/disk.img"
        mount = f"mount -t ext4 -o loop,nosuid,nodev {file} {at}"
        self.assertIn(f"[ ! -e {file} ] || {mount}\n", script)
        self.assertIn('data="$scratch"/memory/volumes/pg/data\n', script)

    def test_limits(self) -> None:
        """A limit on open files is set; a limited disk is a file system of that size."""
        script = script_of(limits={"files": 100, "disk": "1M"})
        self.assertIn("prlimit --pid $$ --nofile=100\n", script)
        self.assertIn("size=1048576 scratch /private/disk\n", script)

    def test_disk_size(self) -> None:
        """A disk of its own is made once, and mounted by a loop device."""
        script = script_of(limits={}, disk_size="16M")
        self.assertIn("fallocate -l 16777216 /private/disk.img && ", script)
        options = "loop,nosuid,nodev"
        self.assertIn(f"mount -t ext4 -o {options} /private/disk.img /private/disk\n", script)

    def test_variables_are_filled_in(self) -> None:
        """${NAME} stands for the value that NAME had before; the shell expands nothing else."""
        script = script_of(startup_env="A=1 2;B=${A}$A;HOME=${HOME}/x;C=${NONE}")
        self.assertIn("""A='1 2' B='1 2''$A' C=""", script.replace(' HOME="$home"/x', ""))
        self.assertIn('exec env -i HOME="$home"/x USER="$user" PATH=/usr/', script)

    def test_an_environment_without_end(self) -> None:
        """A text that doubles itself is refused and not written out."""
        doubling = ";".join(["A=${PATH}", *["A=${A}${A}"] * 30])
        self.assertRaises(InvalidData, script_of, startup_env=doubling)

    def test_a_network(self) -> None:
        """A private network is one more namespace, and needs a link that another makes."""
        self.assertNotIn("--net", script_of())
        script = script_of(network="none")
        self.assertIn("--mount --cgroup --net ", script)
        self.assertIn("ip link set lo up\n", script)
        self.assertIn('127.0.1.1 web-1\n\' >"$root"/etc/hosts\n', script)
        self.assertNotIn("eth0", script)
        link = Link("10.0.0.2", "255.255.0.0", "10.0.0.1", Link6("fd00::2", 64, "fd00::1"))
        plan = make_plan(make_spec(network="private"), evolve(PATHS, mounts=[], link=link), "web-1")
        script = explain(plan)
        self.assertIn("ip address add 10.0.0.2/255.255.0.0 dev eth0\n", script)
        self.assertIn("ip route add default via 10.0.0.1\n", script)
        self.assertIn("ip address add fd00::2/64 dev eth0 nodad\n", script)
        self.assertIn("ip -6 route add default via fd00::1\n", script)
        self.assertIn("nameserver 10.0.0.1\n", script)

    def test_an_init(self) -> None:
        """If PID 1 looks after the script, the shell waits for it."""
        script = script_of(startup_script="/x", init=True)
        self.assertIn("\nenv -i ", script)
        self.assertNotIn("exec env -i", script)

    def test_idle(self) -> None:
        """A container without a script runs sleep(1)."""
        self.assertIn("    sleep infinity\nCONTAINER\n) ", script_of())

    def test_unpacking(self) -> None:
        """The plan that unpacks a tarball can be read as well."""
        tar = Program("/usr/bin/tar")
        script = explain(make_unpacking_plan("/a b.tar", "/layer", "/scratch", "/.x", tar))
        self.assertIn("""bind '/a b.tar' "$root"/.x/tarball ro,nosuid,nodev,noexec\n""", script)
        self.assertIn("""mount --bind /layer "$root"\n""", script)


@needs_root
class ForReal(SynchronousTestCase):
    """What the script makes."""

    def setUp(self) -> None:
        self.folder = os.path.abspath(self.mktemp())
        for name in ("base", "layer", "private", "scratch", "empty"):
            os.makedirs(self.path(name))
        make_layer(self.path("base"), probe=PROBE)
        os.mkdir(self.path("base/etc"))
        for name, text in (("passwd", PASSWD), ("group", GROUP)):
            with open(self.path(f"base/etc/{name}"), "w") as file:
                file.write(text)
        os.chown(self.path("layer"), 33, 34)

    def path(self, name: str) -> str:
        return os.path.join(self.folder, name)

    def plan(self, **changes: Any) -> list[tuple[Any, ...]]:
        mounts = ["layer.tar /data READWRITE", "layer.tar /shared READ"]
        changes = {"mounts": mounts, "startup_script": "/probe", **changes}
        paths = Paths(
            self.path("base"),
            [self.path("layer")] * 2,
            self.path("private"),
            self.path("scratch"),
            Host.here(self.path("empty"), compile_filters()),
        )
        output = {"stdout": self.path("out"), "stderr": self.path("err")}
        plan = make_plan(make_spec(**changes), paths, "web-1")
        return [(op, output if op == "output" else arguments) for op, arguments in plan]

    def output(self) -> list[str]:
        """What the last container wrote, without what differs from run to run."""
        with open(self.path("err")) as file:
            self.assertEqual(file.read(), "")
        with open(self.path("out"), "r+") as file:
            text = file.read()
            file.truncate(0)
        shutil.rmtree(self.path("private"))  # as if it were a new instance
        os.mkdir(self.path("private"))
        text = re.sub(r"^(\d+ \d+ \d+:\d+)", "", text, flags=re.M)  # numbers of mounts
        text = re.sub(r"/by-hand\.\w+/memory", "/scratch", text)
        return [line for line in text.splitlines() if not re.match(DIFFERS, line)]

    def by_shell(self, plan: list[tuple[Any, ...]]) -> list[str]:
        with open(self.path("script"), "w") as file:
            file.write(explain(plan))
        dirty = {**os.environ, "LEAKS": "yes", "TMPDIR": self.folder}
        with open(self.path("out"), "a") as out, open(self.path("err"), "a") as error:
            subprocess.run(
                ["env", "--default-signal", "sh", self.path("script")],
                check=True,
                timeout=30,
                env=dirty,
                stdout=out,
                stderr=error,
            )
        self.assertNotIn("by-hand", "".join(os.listdir(self.folder)))
        return self.output()

    def by_init(self, plan: list[tuple[Any, ...]]) -> list[str]:
        server = socket.socket(socket.AF_UNIX)
        self.addCleanup(server.close)
        place = os.path.relpath(self.path("socket"))  # a socket's path may not be long
        server.bind(place)
        server.listen()
        server.settimeout(30)
        command = ["unshare", "--pid", "--fork", "--kill-child", "--uts", "--ipc", sys.executable]
        process = subprocess.Popen([*command, "-I", "-S", "-B", INIT, place, "token"])
        self.addCleanup(process.wait)
        connection = server.accept()[0]
        os.unlink(place)
        connection.settimeout(30)
        with connection, connection.makefile("rwb") as stream:
            stream.readline()
            message = marshal.dumps(plan)
            stream.write(len(message).to_bytes(4, "big") + message)
            stream.flush()
            self.assertIn(b"done", stream.readline())
            self.assertEqual(stream.read(), b"")
        self.assertEqual(process.wait(30), 0)
        return self.output()

    def test_the_same_container_as_the_init_makes(self) -> None:
        """From inside, mounts, powers, identity, environment and descriptors are the same."""
        for changes in (
            {},
            {"startup_owner": "www", "startup_env": "PORT=1;A=${HOME}${NO}/${USER} ${PATH}"},
            {"startup_owner": "4711"},  # there is a user of this name, and a member of a group
            {"startup_owner": "www:adm", "startup_env": {"A": "a;${B}\nCONTAINER\n\t\u00a0"}},
            {"startup_owner": "www:4294967294"},
            {"startup_owner": "034"},
            {
                "files": [
                    {"path": "/etc/own", "content": "it's\n", "owner": "www", "mode": "0600"},
                    {"path": "/new/deep/one", "content": "x", "owner": "4711:adm"},
                ],
                "startup_owner": "www",
                "workdir": "/new/deep",
            },
        ):
            plan = self.plan(**changes)
            self.assertEqual(self.by_shell(plan), self.by_init(plan))

    def test_from_inside(self) -> None:
        """It is PID 1 with its own name, few powers, a read-only root and a writable mount."""
        seen = self.by_shell(self.plan(startup_owner="www"))
        for line in (
            "pid 1, working in /data, argument /probe",
            "hostname web-1",
            "can't write to /file",
            "writes to /data/file",
            "can't write to /shared/file",
            "can't write to /proc/sys/kernel/hostname",
            "CapEff:\t0000000000000000",
            "CapBnd:\t00000000a00405fb",
            "NoNewPrivs:\t1",
            "Uid:\t33\t33\t33\t33",
            "Groups:\t4 34 ",
        ):
            self.assertIn(line.strip(), [line.strip() for line in seen])
        self.assertNotIn("LEAKS", "".join(seen))
        self.assertEqual(os.listdir(self.path("layer")), [])

    def test_an_unknown_owner(self) -> None:
        """The script stops with a sentence if the image does not know the owner."""
        with self.assertRaises(subprocess.CalledProcessError):
            self.by_shell(self.plan(startup_owner="nobody-here"))
        with open(self.path("err")) as file:
            self.assertIn("the image knows no user nobody-here", file.read())

    def test_an_unknown_group(self) -> None:
        """It also stops if the image does not know the owner's group."""
        with self.assertRaises(subprocess.CalledProcessError):
            self.by_shell(self.plan(startup_owner="root:nobody-here"))
        with open(self.path("err")) as file:
            self.assertIn("the image knows no group nobody-here", file.read())

    def test_nothing_stays_mounted(self) -> None:
        """After the container has ended, nothing of it is mounted on the host."""
        self.assertIn(self.folder, "".join(self.by_shell(self.plan())))  # as seen from inside
        with open("/proc/self/mountinfo") as file:
            self.assertNotIn(self.folder, file.read())
