"""What a container sees of itself, of others and of the host: as told from inside."""

import os
import socket
import tarfile
from pathlib import Path
from typing import Any

from tests.integration.harness import SharedManagerCase, fingerprint
from tests.integration.tarballs import Member, file, folder, link, script, small_image, special

# capabilities(7): CHOWN DAC_OVERRIDE FOWNER FSETID KILL SETGID SETUID SETPCAP
# NET_BIND_SERVICE SYS_CHROOT AUDIT_WRITE SETFCAP
CAPABILITIES = sum(1 << number for number in (0, 1, 3, 4, 5, 6, 7, 8, 10, 18, 29, 31))
MASKED_FILES = """/proc/interrupts /proc/kcore /proc/keys /proc/latency_stats /proc/sched_debug
    /proc/timer_list /proc/timer_stats""".split()
MASKED_FOLDERS = """/proc/acpi /proc/asound /proc/scsi /sys/firmware
    /sys/devices/virtual/powercap""".split()
READ_ONLY = """/proc/bus /proc/dynamic_debug /proc/fs /proc/irq /proc/sys /proc/sysrq-trigger
    /sys""".split()
DEVICES = {"full", "null", "random", "tty", "urandom", "zero"}
LINKS = {"fd", "ptmx", "stderr", "stdin", "stdout"}
FOLDERS = {"mqueue", "pts", "shm"}
TRY = 'try() { "$@" >/tmp/said 2>&1 && echo "done: $*" || cat /tmp/said; }\n'


def existing(paths: list[str]) -> list[str]:
    """Those of these paths that this host has."""
    return [path for path in paths if os.path.exists(path)]


class ProcessTests(SharedManagerCase):
    """Processes, namespaces and names."""

    def test_alone(self) -> None:
        """The startup script is PID 1, and sees no process but its own children."""
        out = self.inside("sleep 9 & echo $$ $! /proc/[0-9]*")
        self.assertEqual(out, "1 2 /proc/1 /proc/2\n")

    def test_name(self) -> None:
        """The hostname is the instance's name, and the host keeps its own."""
        before = socket.gethostname()
        instance = self.launch(**self.job("#!/bin/sh\ncat /proc/sys/kernel/hostname\n"))
        self.assertEqual(self.output_of(instance), instance + "\n")
        self.assertEqual(socket.gethostname(), before)

    def test_namespaces(self) -> None:
        """Each container has namespaces of its own; only the network is the host's."""
        kinds = ("pid", "mnt", "uts", "ipc", "cgroup", "net")
        look = "\n".join(f"readlink /proc/self/ns/{kind}" for kind in kinds)
        one = self.log_of(self.running_inside(look)).split()[:-1]
        two = self.inside(look).split()
        host = [os.readlink(f"/proc/self/ns/{kind}") for kind in kinds]
        self.assertEqual(
            [len({*seen}) for seen in zip(one, two, host, strict=True)], [3, 3, 3, 3, 3, 1]
        )

    def test_signals(self) -> None:
        """The script begins with no signal blocked or ignored, and files are made as 0644."""
        # Only by the shell: while it starts another program, it blocks signals for a moment.
        look = "while read -r name mask; do case $name in Sig[BI]*) echo $mask; esac; done"
        *masks, umask = self.inside(f"{look} </proc/1/status; umask").split()
        ordinary = (1 << 31) - 1  # 32 and 33 are the C library's own
        self.assertEqual([int(mask, 16) & ordinary for mask in masks], [0, 0])
        self.assertEqual(umask, "0022")

    def test_descriptors(self) -> None:
        """It inherits its three standard streams, no other descriptor, and no input."""
        out = self.inside("ls /proc/self/fd; cat")
        self.assertEqual(out.split(), ["0", "1", "2", "3"])  # 3 is ls's own

    def test_apart(self) -> None:
        """What one container leaves in /tmp, /run or /dev/shm, another does not see."""
        text = "for f in /tmp /run /dev/shm /dev/mqueue; do ls $f; touch $f/trace; done"
        self.running_inside(text)
        self.assertEqual(self.inside(text), "")


class OwnerTests(SharedManagerCase):
    """Who the script runs as, and with what environment."""

    LOOK = "id -u; id -G; echo $HOME; echo $USER; readlink /proc/self/cwd"

    def test_root(self) -> None:
        """Without startup_owner, root of the image runs it."""
        self.assertEqual(self.inside(self.LOOK).split(), ["0", "0", "/root", "root", "/root"])

    def test_owner(self) -> None:
        """By name or by number, the owner brings groups, HOME, USER and working directory."""
        for owner in ("worker", "1000"):
            self.assertEqual(
                self.inside(self.LOOK, startup_owner=owner).splitlines(),
                ["1000", "1000 2000", "/home/worker", "worker", "/home/worker"],
            )

    def test_unlisted_number(self) -> None:
        """A number that the image does not know is an owner too, without a home."""
        out = self.inside(self.LOOK, startup_owner="12345").split()
        self.assertEqual(out, ["12345", "12345", "/", "12345", "/"])

    def test_environment(self) -> None:
        """The environment is small and known, and nothing of the manager's is in it."""
        self.stop()
        self.start(SECRET="hidden", LD_LIBRARY_PATH="/nowhere")
        environment = self.inside("cat /proc/1/environ").split("\0")
        self.assertEqual(
            sorted(filter(None, environment)),
            [
                "HOME=/root",
                "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                "TERM=dumb",
                "USER=root",
            ],
        )

    def test_startup_env(self) -> None:
        """startup_env comes on top, ${NAME} is what NAME was, and nothing else means anything."""
        given = "A=one;PATH=/x:${PATH};B=${A} ${NONE}.;A=two=2;C=$A `id` $(id) \\$'\""
        out = self.inside("cat /proc/1/environ", startup_env=given)
        environment = dict(line.split("=", 1) for line in filter(None, out.split("\0")))
        self.assertTrue(environment["PATH"].startswith("/x:/usr/local/sbin:"))
        self.assertEqual(
            (environment["A"], environment["B"], environment["C"]),
            ("two=2", "one .", "$A `id` $(id) \\$'\""),
        )

    def test_no_interpreter_line(self) -> None:
        """A script without a #! line is run by /bin/sh."""
        instance = self.launch(**self.job("echo run by $(readlink /proc/1/exe)\n"))
        self.assertEqual(self.output_of(instance), "run by /bin/sh\n")

    def test_idle(self) -> None:
        """Without a startup script the container idles until it is destroyed."""
        instance = self.launch()
        self.assertEqual(self.running(), [instance])
        self.assertEqual(self.ask("DELETE", f"/destroy/{instance}").status, 200)
        self.assertEqual(self.running(), [])


class PowerTests(SharedManagerCase):
    """Capabilities, and what may not be gained."""

    def powers(self, out: str) -> dict[str, int]:
        """The lines of /proc/self/status as numbers."""
        return {line.split(":")[0]: int(line.split()[1], 16) for line in out.splitlines()}

    LOOK = "grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status | grep -v Seccomp"

    def test_root(self) -> None:
        """Root has what Docker keeps, without MKNOD and NET_RAW, and can gain nothing."""
        self.assertEqual(
            self.powers(self.inside(self.LOOK)),
            {
                "CapInh": 0,
                "CapPrm": CAPABILITIES,
                "CapEff": CAPABILITIES,
                "CapBnd": CAPABILITIES,
                "CapAmb": 0,
                "NoNewPrivs": 1,
            },
        )

    def test_owner(self) -> None:
        """An owner other than root has no capability at all."""
        powers = self.powers(self.inside(self.LOOK, startup_owner="worker"))
        self.assertEqual(
            [powers[name] for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")], [0, 0, 0, 0]
        )
        self.assertEqual(powers["NoNewPrivs"], 1)

    def test_setuid(self) -> None:
        """A setuid program gains nothing, neither in the base image nor in a mount."""
        tools = {member.name: content for member, content in small_image()}
        setuid = file("suid/id", tools["bin/id"], 0o4755)
        out = self.inside(
            "for d in /suid /rw/suid /ro/suid; do ls -l $d/id; $d/id -u; done",
            startup_owner="worker",
            base_image=self.image("suid.tar", setuid),
            mounts=[
                f"{self.mountable('tools.tar', setuid, file('more'))} /rw READWRITE",
                "tools.tar /ro READ",
            ],
        )
        self.assertEqual(out.count("-rwsr-xr-x"), 3, "the bit was there")
        self.assertEqual(out.splitlines()[1::2], ["1000"] * 3)

    def test_no_new_devices(self) -> None:
        """Root can make no device node, and could open none."""
        out = self.inside("mknod /tmp/disk b 8 0 2>&1; mknod /dev/mem2 c 1 1 2>&1; ls /tmp")
        self.assertEqual(out.count("Operation not permitted"), 2)
        self.assertEqual(len(out.splitlines()), 2)


class KernelTests(SharedManagerCase):
    """/proc, /sys, /dev and the list of mounts."""

    def test_mounts(self) -> None:
        """The container's mounts are those it was given; none is shared with the host."""
        self.mountable("data.tar", file("some"), file("more"))
        out = self.inside("cat /proc/self/mountinfo", mounts=["data.tar /data READWRITE"])
        points = {line.split()[4]: line for line in out.splitlines()}
        own = "/ /proc /sys /dev /dev/pts /dev/shm /dev/mqueue /run /tmp /data /job".split()
        hidden = {*READ_ONLY, *MASKED_FILES, *MASKED_FOLDERS} - {"/sys"}
        self.assertEqual(set(points) - hidden, {*own})
        self.assertNotIn("shared:", out)
        self.assertNotIn("master:", out)

    def test_mount_flags(self) -> None:
        """No mount honours setuid bits; only /dev, and what hides files of /proc, has devices."""
        out = self.inside("cat /proc/self/mountinfo")
        flags = {line.split()[4]: line.split()[5].split(",") for line in out.splitlines()}
        self.assertEqual({point for point in flags if "nosuid" not in flags[point]}, set())
        self.assertEqual(
            {point for point in flags if "nodev" not in flags[point]},
            {"/dev", "/dev/pts", *existing(MASKED_FILES)},
        )
        for point in ("/", "/job", "/sys"):
            self.assertIn("ro", flags[point], point)

    def test_devices(self) -> None:
        """/dev holds the harmless devices, which work, and nothing of the host's."""
        out = self.inside("ls /dev; ls -lR /dev/ | grep ^b; echo end")
        self.assertEqual({*out.split()}, DEVICES | LINKS | FOLDERS | {"end"})
        out = self.inside(
            f"for d in {' '.join(sorted(DEVICES))}; do test -c /dev/$d && echo $d; done\n"
            "echo lost >/dev/null; cat /job/run 2>&1 >/dev/full; ls /dev/pts",
            startup_owner="worker",
        )
        self.assertEqual({*out.split("\n")} & DEVICES, DEVICES)
        self.assertIn("No space left on device", out)
        self.assertTrue(out.endswith("\nptmx\n"), out)

    def test_masked(self) -> None:
        """What /proc and /sys tell about the host is hidden."""
        files, folders = existing(MASKED_FILES), existing(MASKED_FOLDERS)
        self.assertTrue(files and folders)
        out = self.inside(
            f"for f in {' '.join(files)}; do test -c $f && cat $f 2>/dev/null; echo $f; done\n"
            f"for f in {' '.join(folders)}; do test -d $f && ls -A $f; echo $f; done\n"
        )
        self.assertEqual(out.split(), files + folders)

    def test_read_only(self) -> None:
        """What could change the host through /proc or /sys is read-only, even for root."""
        paths = existing(READ_ONLY)
        out = self.inside(f"{TRY}for f in {' '.join(paths)}; do try touch $f; done")
        self.assertEqual(out.count("Read-only file system"), len(paths), out)
        out = self.inside(
            f"{TRY}try sh -c 'echo x >/proc/sys/kernel/hostname'\n"
            "try sh -c 'echo x >/proc/sys/kernel/core_pattern'\n"
            "try mkdir /sys/fs/cgroup/more\ntry chmod 777 /sys/kernel"
        )
        self.assertNotIn("done", out)
        self.assertEqual(len(out.splitlines()), 4)


class FileTests(SharedManagerCase):
    """READ is read-only, READWRITE is private, and what is shared stays as it is."""

    def add_images(self) -> None:
        """The small image and a tarball of data."""
        super().add_images()
        self.mountable("data.tar", folder("kept"), file("kept/file", "old"), file("gone", "old"))

    def layers(self) -> dict[str, Any]:
        """All that the shared layers hold."""
        return fingerprint(self.state / "layers")

    def test_root_of_the_image(self) -> None:
        """The container's root is the image, with the mount points and nothing of the host."""
        out = self.inside("cd /; ls -A")
        own = {name.split("/")[0] for name in (member.name for member, _ in small_image())}
        self.assertEqual({*out.split()}, own | {"proc", "sys", "dev", "run", "tmp", "job"})

    def test_read_only(self) -> None:
        """In no way can root change the base image or a READ mount."""
        ways = """touch /new; touch /etc/passwd; rm /etc/passwd; mv /etc /usr; chmod 777 /etc;
            chown 1000 /etc; ln /etc/passwd /etc/link; mkdir /data/new; touch /data/gone;
            rm /data/gone; touch /proc/1/root/data/gone; chmod 777 /data""".split(";")
        out = self.inside(
            TRY + "\n".join(f"try {way.strip()}" for way in ways), mounts=["data.tar /data READ"]
        )
        self.assertEqual(out.count("Read-only file system"), len(ways), out)

    def test_no_remount(self) -> None:
        """Root can't mount or unmount anything to get around a READ mount or a read-only root."""
        ways = [
            "mount -o remount,rw /",
            "mount -o remount,bind,rw /data",
            "mount -o remount,rw /proc/sys",
            "mount -t tmpfs tmpfs /tmp",
            "mount --bind /tmp /data",
            "umount /data",
            "umount -l /proc/sys",
        ]
        out = self.inside(
            TRY + "\n".join(f"try {way}" for way in [*ways, "touch /data/gone"]),
            mounts=["data.tar /data READ"],
        )
        self.assertNotIn("done", out)
        self.assertTrue(out.endswith("Read-only file system\n"), out)

    def test_private(self) -> None:
        """What an instance writes to a READWRITE mount changes no other, nor the shared layer."""
        mounts = ["data.tar /data READWRITE"]
        changes = """echo new >/data/kept/file; rm /data/gone; touch /data/more
            chmod 700 /data/kept; chown 1000 /data; cat /data/kept/file; ls /data"""
        look = "cat /data/kept/file; ls -ld --time-style=+ /data; ls /data"
        untouched = self.inside(look, mounts=mounts)
        before = self.layers()
        for _ in range(2):
            writer = self.running_inside(changes, mounts=mounts)
            self.assertEqual(self.log_of(writer), "new\nkept\nmore\ndone\n")
        self.assertEqual(self.inside(look, mounts=mounts), untouched)
        after = self.layers()
        self.assertEqual({path: after[path] for path in before}, before)

    def test_two_of_one_config(self) -> None:
        """Two instances of one config start alike, and each keeps what it has written."""
        text = "#!/bin/sh\nls /data; touch /data/$(cat /proc/sys/kernel/hostname); ls /data\n"
        key = self.upload(**self.job(text, mounts=["data.tar /data READWRITE"]))
        one, two = (self.ask("POST", "/launch", key).json["instance"] for _ in range(2))
        for instance in (one, two):
            out = self.output_of(instance).split()
            self.assertEqual(sorted(out), sorted(["gone", "kept"] * 2 + [instance]))

    def test_unpacked_once(self) -> None:
        """Many launches of a config at once and later share the layers of the first."""
        before = set(self.state.glob("layers/*[0-9a-f]"))
        base, data = self.image("once.tar"), self.mountable("data-once.tar", file("a"))
        mounts = [f"{data} /data READ", f"{data} /more READWRITE"]
        key = self.upload(base_image=base, mounts=mounts)
        for _ in range(3):
            self.assertEqual(self.ask("POST", "/launch", key).status, 200)
        self.assertEqual(len(set(self.state.glob("layers/*[0-9a-f]")) - before), 2)

    def test_mount_order(self) -> None:
        """One mount may lie in another, whichever is named first; two at one place are refused."""
        self.mountable("a.tar", file("a"), file("sub/a"))
        self.mountable("b.tar", file("b"), file("c"))
        out = self.inside(
            "ls /x /x/sub /y", mounts=["b.tar /x/sub READ", "a.tar /x READ", "b.tar /y READWRITE"]
        )
        self.assertEqual(out, "/x:\na\nsub\n\n/x/sub:\nb\nc\n\n/y:\nb\nc\n")
        twice = self.config(mounts=["a.tar /y READ", "b.tar /y READWRITE"])
        self.assert_refused(self.ask("POST", "/config", twice), 409, "two tarballs at '/y'")

    def test_made_mount_points(self) -> None:
        """A missing mount point is made, but neither a READ mount nor the base image changes."""
        mounts = ["data.tar /data READ", "data.tar /data/kept/a/b READWRITE", "data.tar /o/p READ"]
        tried = "touch /data/kept/a/b/new && ls /data/kept/a/b /o/p; touch /data/kept/a/new 2>&1"
        self.inside("true", mounts=["data.tar /data READ"])
        before = self.layers()
        out = self.inside(tried, mounts=mounts)
        self.assertIn("/data/kept/a/b:\ngone\nkept\nnew\n\n/o/p:\ngone\nkept\n", out)
        self.assertIn("Read-only file system", out)
        self.assertEqual(
            self.inside("ls /data/kept /o 2>&1", mounts=["data.tar /data READ"]).splitlines()[-1],
            "file",
        )
        after = self.layers()
        self.assertEqual({path: after[path] for path in before}, before)

    def test_tarball_with_its_own_folder(self) -> None:
        """A tarball's content may lie below one folder of its own name, or at its top."""
        self.mountable("potato.tar", folder("potato"), file("potato/potato.html", "in a folder"))
        self.mountable("other.tar", folder("potato"), file("potato/potato.html", "at the top"))
        out = self.inside(
            "cat /a/potato.html; cat /b/potato/potato.html",
            mounts=["potato.tar /a READ", "other.tar /b READ"],
        )
        self.assertEqual(out, "in a folderat the top")


class HostileImageTests(SharedManagerCase):
    """Images whose links would lead a mount to the host."""

    def setUp(self) -> None:
        """Make a folder on the host that links in images lead to."""
        super().setUp()
        self.outside = self.folder / "outside"
        self.outside.mkdir(exist_ok=True)
        self.mountable("data.tar", file("mark", "in place"), file("more"))

    def image_with(self, *members: Member) -> str:
        """A base image of a name of its own."""
        return self.image(f"image{len(os.listdir(self.folder / 'base_images'))}.tar", *members)

    def refused(self, *words: str, **keys: object) -> None:
        """Fail unless a launch is refused for these reasons, and has left the host alone."""
        self.assert_refused(self.try_to_launch(**keys), 409, *words)
        self.assert_only_failures_left()
        self.assertEqual(os.listdir(self.outside), [])

    def test_links_end_inside(self) -> None:
        """A target that leads through a link ends where the link leads inside the container."""
        image = self.image_with(
            link("abs", "/etc"),
            link("up", "../../../../../../etc/../.."),
            link("host", str(self.outside)),
            folder(str(self.outside).lstrip("/")),
        )
        out = self.inside(
            f"cat /etc/x/mark /y/mark {self.outside}/z/mark",
            base_image=image,
            mounts=["data.tar /abs/x READ", "data.tar /up/y READWRITE", "data.tar /host/z READ"],
        )
        self.assertEqual(out, "in place" * 3)
        self.assertEqual(os.listdir(self.outside), [])
        self.assertFalse(os.path.exists("/etc/x") or os.path.exists("/y"))

    def test_links_in_mounts(self) -> None:
        """Nor does a link in a tarball lead the next mount out of the container."""
        self.mountable("links.tar", link("out", "/../../../etc"), file("more"))
        out = self.inside(
            "cat /etc/x/mark", mounts=["links.tar /links READ", "data.tar /links/out/x READ"]
        )
        self.assertEqual(out, "in place")

    def test_dangling_link(self) -> None:
        """A link to nowhere is followed in the container's root, also if the host has that path."""
        for target in ("/nowhere", str(self.outside)):
            out = self.inside(
                f"readlink /mnt; ls {target}",
                base_image=self.image_with(link("mnt", target)),
                mounts=["data.tar /mnt READ"],
            )
            self.assertEqual(out.split(), [target, "mark", "more"])

    def test_circle(self) -> None:
        """Links in a circle are refused."""
        image = self.image_with(link("a", "b"), link("b", "a"))
        self.refused("circles", base_image=image, mounts=["data.tar /a/x READ"])

    def test_file_in_the_way(self) -> None:
        """A target with a file in its way is refused, and the reason says so."""
        for target in ("/etc/passwd", "/etc/passwd/below"):
            self.refused("is a file", mounts=[f"data.tar {target} READ"])

    def test_kernels_own_folders(self) -> None:
        """An image whose /proc, /sys or /dev is a link or a file is refused."""
        for name in ("proc", "sys", "dev"):
            self.refused("link", f"/{name}", base_image=self.image_with(link(name, "/etc")))
            self.refused("link", base_image=self.image_with(link(name, str(self.outside))))
        for name in ("proc", "sys", "dev", "run", "tmp"):
            self.refused("is a file", base_image=self.image_with(file(name)))
        for name in ("run", "tmp"):  # which may be links, but to nothing of the host's
            for target in ("/etc", str(self.outside)):
                out = self.inside(
                    f"echo x > /{name}/new && cat {target}/new",
                    base_image=self.image_with(link(name, target)),
                )
                self.assertEqual(out, "x\n")
        self.assertEqual(os.listdir(self.outside), [])
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
        points = {line.split()[4] for line in mounts}
        self.assertEqual(points & {"/etc", str(self.outside)}, set())

    def test_links_below_dev(self) -> None:
        """What an image has below /dev is covered, and leads nowhere."""
        members = [link(f"dev/{name}", "/etc") for name in ("pts", "shm", "null", "fd")]
        out = self.inside("ls /etc; ls /dev/shm", base_image=self.image_with(*members))
        names = ["group", "hostname", "hosts", "passwd", "resolv.conf"]
        self.assertEqual(out.split(), names)

    def test_nodes_of_an_image(self) -> None:
        """A fifo in an image makes nobody wait, even in place of its passwd file."""
        fifo = special("etc/passwd", tarfile.FIFOTYPE)
        out = self.inside("id -u; echo $HOME", base_image=self.image_with(fifo))
        self.assertEqual(out, "0\n/\n")

    def test_script_by_link(self) -> None:
        """A startup script may be reached by a link that stays inside."""
        image = self.image_with(script("real", "#!/bin/sh\necho found\n"), link("linked", "real"))
        instance = self.launch(base_image=image, startup_script="/linked")
        self.assertEqual(self.output_of(instance), "found\n")
