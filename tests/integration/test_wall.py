"""Ways out of a container, each tried for real by root in it (docs/security.md)."""

from __future__ import annotations

import ctypes
import json
import marshal
import os
import platform
import resource
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, ClassVar

import pyseccomp
from twisted.trial.unittest import SynchronousTestCase

from tests.integration.harness import NEW_NUMBER, ManagerCase, SharedManagerCase, wait_until
from tests.integration.probes import PRELUDE, PYTHON, ProbeCase
from tests.integration.tarballs import PASSWD, file, folder, link, pack, script, special
from tests.support import DISK, PROJECT, needs_networks, needs_root, needs_user_namespaces
from txcontain.container.plan import Plan
from txcontain.container.seccomp import REFUSED
from txcontain.images.programs import Program, find
from txcontain.images.unpacking_plan import make_merging_plan, make_unpacking_plan

NOT_TO_BE_HAD = {"EPERM", "ENOSYS"}
IPC_CREAT, IPC_RMID = 0o1000, 0
CLONE_NEWUSER = 0x10000000
SYSLOG_SIZE_UNREAD = 9  # syslog(2)
X32 = 0x40000000  # added to a system call's number, it is that of another ABI
DEVICES = {"full", "null", "ptmx", "random", "tty", "urandom", "zero"}


def numbers(names: list[str]) -> dict[str, int]:
    """The numbers of those of these system calls that this machine has."""
    found = {}
    for name in names:
        try:
            found[name] = pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, name)
        except ValueError:  # libseccomp is older than this system call
            continue
    return {name: number for name, number in found.items() if number >= 0}


class SystemCallTests(SharedManagerCase, ProbeCase):
    """What seccomp and the missing capabilities refuse."""

    def test_refused(self) -> None:
        """No system call that leads around the walls is allowed."""
        unlisted = ["clone3", "lsm_set_self_attr", "vserver", "afs_syscall"]
        calls = numbers([*REFUSED, *unlisted])
        said = self.probe(f"tell(**{{name: system_call(n) for name, n in {calls}.items()}})")
        self.assertLess(40, len(said))
        self.assertEqual({n: said[n] for n in said if said[n] not in NOT_TO_BE_HAD}, {})

    def test_namespaces(self) -> None:
        """No new user namespace can be made: root would have all capabilities in it."""
        calls = numbers(["clone", "unshare", "personality"])
        said = self.probe(f"""
calls = {calls}
tell(clone=system_call(calls["clone"], {CLONE_NEWUSER} | signal.SIGCHLD, 0, 0, 0, 0),
     unshare=system_call(calls["unshare"], {CLONE_NEWUSER}),
     personality=system_call(calls["personality"], 0x0040000))
""")
        self.assertEqual(set(said.values()) - NOT_TO_BE_HAD, set())

    def test_other_tables(self) -> None:
        """32-bit and x32 system calls are no way around the filter."""
        if platform.machine() != "x86_64":
            return
        said = self.probe(f"""
def by_interrupt(number):
    code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    # push rbx; mov eax, number; xor ebx, ebx; xor ecx, ecx; int 0x80; pop rbx; ret
    code.write(b"\\x53\\xb8" + struct.pack("I", number) +
               b"\\x31\\xdb\\x31\\xc9\\xcd\\x80\\x5b\\xc3")
    call = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))
    result = call()
    return result if result >= 0 else errno.errorcode[-result]

tell(getpid=by_interrupt(20), mount=by_interrupt(21), unshare=by_interrupt(310),
     keyctl=by_interrupt(288),
     x32=in_child(lambda: system_call({X32} + 39) == "done"))
""")
        if said["getpid"] != "ENOSYS":  # a kernel that runs 32-bit programs
            self.assertEqual(said["getpid"], 1)
        refused = {said[name] for name in ("mount", "unshare", "keyctl")}
        self.assertEqual(refused - NOT_TO_BE_HAD, set())
        self.assertIn(said["x32"], (0, -31))  # refused, or ended by SIGSYS

    def test_sockets(self) -> None:
        """No packet or raw socket, and no family that leads around the network namespace."""
        said = self.probe("""
kinds = dict(packet=(socket.AF_PACKET, socket.SOCK_RAW), raw=(socket.AF_INET, socket.SOCK_RAW),
             vsock=(40, socket.SOCK_STREAM), alg=(38, socket.SOCK_SEQPACKET))
tell(**{name: attempt(socket.socket, *kind) for name, kind in kinds.items()},
     tcp=attempt(socket.socket, socket.AF_INET, socket.SOCK_STREAM))
""")
        self.assertEqual(said.pop("tcp"), "done")
        self.assertNotIn("done", said.values())

    def test_others_memory(self) -> None:
        """One process can't attach to another, nor take its memory or descriptors."""
        calls = numbers(["ptrace", "process_vm_readv", "pidfd_getfd", "kcmp"])
        said = self.probe(f"""
child = os.fork()
if child == 0:
    signal.pause()
calls = {calls}
tell(attach=system_call(calls["ptrace"], 16, child, 0, 0),
     seize=system_call(calls["ptrace"], 0x4206, child, 0, 0),
     read=system_call(calls["process_vm_readv"], child, 0, 0, 0, 0, 0),
     getfd=system_call(calls["pidfd_getfd"], os.pidfd_open(child), 0, 0),
     kcmp=system_call(calls["kcmp"], 1, child, 0, 0, 0))
""")
        self.assertEqual(set(said.values()) - NOT_TO_BE_HAD, set())

    def test_scheduling(self) -> None:
        """No real-time priority, and no better one than others have."""
        said = self.probe("""
tell(fifo=attempt(os.sched_setscheduler, 0, os.SCHED_FIFO, os.sched_param(1)),
     nice=attempt(os.setpriority, os.PRIO_PROCESS, 0, -5),
     spare=attempt(os.write, os.open("/proc/self/oom_score_adj", os.O_WRONLY), b"-1000"))
""")
        self.assertEqual(said["fifo"], "EPERM")
        self.assertEqual(said["nice"], "EACCES")
        self.assertEqual(said["spare"], "EACCES")


class PrivilegeTests(SharedManagerCase, ProbeCase):
    """Nothing makes more of root than it is."""

    def test_setuid(self) -> None:
        """A setuid program of root gives no powers, whether in the image or made by root."""
        self.image("setuid.tar", file("suid", mode=0o6755))
        text = """
with open("/tmp/id", "wb") as f:
    f.write(open("/bin/id", "rb").read())
os.chmod("/tmp/id", 0o6755)
read, write = os.pipe()
def run():
    os.setgid(1000); os.setuid(1000)
    os.dup2(write, 1)
    os.execv("/tmp/id", ["id", "-u"])
status = in_child(run)
tell(status=status, uid=os.read(read, 100).decode().strip(), mode=os.stat("/suid").st_mode)
"""
        said = self.probe(text, base_image="setuid.tar")
        self.assertEqual((said["status"], said["uid"]), (0, "1000"))
        self.assertEqual(said["mode"], stat.S_IFREG | 0o6755)  # kept, and void

    def test_file_capabilities(self) -> None:
        """A program given CAP_SYS_ADMIN by setcap has no more than its caller."""
        said = self.probe("""
with open("/tmp/cat", "wb") as f:
    f.write(open("/bin/cat", "rb").read())
os.chmod("/tmp/cat", 0o755)
everything = struct.pack("<IIIII", 0x02000001, 0xffffffff, 0, 0xffffffff, 0)
given = attempt(os.setxattr, "/tmp/cat", "security.capability", everything)
read, write = os.pipe()
def run():
    os.dup2(write, 1)
    os.execv("/tmp/cat", ["cat", "/proc/self/status"])
status = in_child(lambda: attempt(run) != "EPERM")
os.close(write)
text = os.fdopen(read).read()
tell(given=given, status=status, effective=[l for l in text.splitlines() if l.startswith("CapEff")],
     own=[l for l in open("/proc/self/status").read().splitlines() if l.startswith("CapEff")])
""")
        self.assertEqual(said["status"], 0)
        self.assertIn(said["effective"], ([], said["own"]))

    def test_devices(self) -> None:
        """No device can be made, and only the harmless ones are there."""
        said = self.probe("""
tell(disk=attempt(os.mknod, "/tmp/disk", 0o60666, os.makedev(254, 0)),
     memory=attempt(os.mknod, "/dev/mem", 0o20666, os.makedev(1, 1)),
     devices=[name for name in os.listdir("/dev")
              if os.stat("/dev/" + name).st_rdev and not os.path.islink("/dev/" + name)],
     nodev=[line.split()[4] for line in open("/proc/self/mountinfo")
            if not {"nodev", "ro"} & {*line.split()[5].split(",")}],
     suid=[line.split()[4] for line in open("/proc/self/mountinfo")
            if "nosuid" not in line.split()[5].split(",")])
""")
        self.assertEqual((said["disk"], said["memory"]), ("EPERM", "EPERM"))
        self.assertEqual(set(said["devices"]) - DEVICES, set())
        self.assertEqual(said["nodev"], ["/dev", "/dev/pts"])
        self.assertEqual(said["suid"], [])

    def test_kernel_settings(self) -> None:
        """Nothing in /proc or /sys that concerns the host can be written."""
        said = self.probe("""
def write(path):
    descriptor = os.open(path, os.O_WRONLY)
paths = ["/proc/sys/kernel/core_pattern", "/proc/sys/kernel/hostname", "/proc/sys/vm/drop_caches",
         "/proc/sysrq-trigger", "/proc/irq/default_smp_affinity", "/proc/mtrr",
         "/proc/sys/net/ipv4/ip_forward", "/sys/kernel/uevent_helper", "/sys/power/state",
         "/sys/kernel/mm/transparent_hugepage/enabled", "/sys/class/block", "/dev/kmsg"]
tell(**{path: attempt(write, path) for path in paths},
     cgroups=os.listdir("/sys/fs/cgroup") if os.path.exists("/sys/fs/cgroup") else [])
""")
        self.assertEqual(said.pop("cgroups"), [])
        self.assertNotIn("done", said.values())

    def test_what_is_meant_to_be_written(self) -> None:
        """Of all files in /proc and /sys that are not a process's own, none can be written to.

        But for those where a program asks to be told of pressure, as anyone may.
        """
        said = self.probe("""
found, looked = [], 0
for top in ("/proc", "/sys"):
    for folder, folders, files in os.walk(top):
        if folder == "/proc":
            folders[:] = [name for name in folders if not name.isdecimal() and "self" not in name]
        for name in files:
            path = os.path.join(folder, name)
            status = os.lstat(path)
            if stat.S_ISREG(status.st_mode) and status.st_mode & 0o222:
                looked += 1
                if attempt(os.open, path, os.O_WRONLY | os.O_NONBLOCK) == "done":
                    found.append(path)
tell(found=found, looked=looked)
""")
        self.assertLess(100, said["looked"])
        self.assertEqual([p for p in said["found"] if not p.startswith("/proc/pressure/")], [])


class HostTests(SharedManagerCase, ProbeCase):
    """Nothing of the host or of the manager can be reached."""

    def test_chroot(self) -> None:
        """The classic way out of a chroot leads to the container's own root."""
        said = self.probe("""
def identity(path):
    status = os.stat(path)
    return status.st_dev, status.st_ino
before = identity("/")
os.mkdir("/tmp/in")
outside = os.open("/", os.O_RDONLY)
os.chroot("/tmp/in")
os.fchdir(outside)
for _ in range(64):
    os.chdir("..")
os.chroot(".")
tell(before=before, after=identity("/"), names=sorted(os.listdir("/")))
""")
        self.assertEqual(said["before"], said["after"])
        self.assertIn("job", said["names"])

    def test_doors_of_proc(self) -> None:
        """/proc/PID/root, cwd, exe and fd of every process lead only to the container."""
        said = self.probe("""
def same(one, other):
    return os.path.samestat(os.stat(one), os.stat(other))
tell(processes=[name for name in os.listdir("/proc") if name.isdecimal()],
     doors=[same("/proc/1/root", "/"), same("/proc/1/root/../..", "/"),
            same("/proc/1/cwd", "/root"), same("/proc/1/cwd/../..", "/"),
            same("/proc/1/exe", "/bin/python3")],
     mapped=[line for line in open("/proc/self/maps") if "/" in line
             and os.stat(line.split()[5]).st_ino != int(line.split()[4])],
     descriptors=sorted(map(int, os.listdir("/proc/self/fd"))), parent=os.getppid())
""")
        self.assertEqual(said["processes"], ["1"])
        self.assertEqual(said["descriptors"], [0, 1, 2, 3])  # 3 is listdir's own
        self.assertEqual(said["mapped"], [])
        self.assertEqual(said["parent"], 0)
        self.assertEqual(said["doors"], [True] * 5)

    def test_standard_input(self) -> None:
        """Standard input is the container's own /dev/null: changing it changes nothing outside."""
        said = self.probe("""
tell(own=os.path.samestat(os.fstat(0), os.stat("/dev/null")), device=os.fstat(0).st_dev,
     dev=os.stat("/dev").st_dev)
""")
        self.assertTrue(said["own"])
        self.assertEqual(said["device"], said["dev"])
        self.assertNotEqual(said["device"], os.stat("/dev/null").st_dev)

    def test_rewriting_the_manager(self) -> None:
        """A script whose interpreter is /proc/self/exe gets no writable hold of Python's own file.

        This was CVE-2019-5736, by which containers rewrote runc.
        """
        steal = """
held = os.open("/proc/self/exe", os.O_RDONLY)
writing = attempt(os.open, f"/proc/self/fd/{held}", os.O_WRONLY)
tell(written=writing, sealed=bool(os.fstatvfs(held).f_flag & os.ST_RDONLY),
     inode=os.fstat(held).st_ino)
"""
        text = PRELUDE.replace("#!/bin/python3", "#!/proc/self/exe") + steal
        self.image("theft.tar", script("steal", text))
        said = self.told_by(self.launch(startup_script="/steal", base_image="theft.tar"))
        self.assertEqual(said["inode"], os.stat(PYTHON).st_ino)
        self.assertTrue(said["sealed"])
        self.assertIn(said["written"], ("EROFS", "ETXTBSY"))

    def test_managers_paths(self) -> None:
        """Neither the manager's socket, its folders nor its processes can be reached."""
        said = self.probe(f"""
state = {str(self.state)!r}
def connect(address):
    socket.socket(socket.AF_UNIX).connect(address)
tell(folder=os.path.exists(state), socket=attempt(connect, state + "/run/init.sock"),
     abstract=attempt(connect, "\\0" + state + "/run/init.sock"),
     manager=attempt(os.kill, {self.manager.pid}, 0),
     variables=[name for name in os.environ if name not in
                ("HOME", "USER", "PATH", "TERM", "LC_CTYPE")],
     mounts=[line for line in open("/proc/self/mountinfo") if line.split()[3] == "/"
             and line.split(" - ")[1].split()[0] in ("ext4", "xfs", "btrfs", "devtmpfs")])
""")
        self.assertEqual(
            said,
            {
                "folder": False,
                "socket": "ENOENT",
                "abstract": "ECONNREFUSED",
                "manager": "ESRCH",
                "variables": [],
                "mounts": [],
            },
        )

    def test_links_of_an_image(self) -> None:
        """If paths of an image are symbolic links, mounts stay inside the image."""
        outside = self.folder / "outside"
        outside.mkdir()
        self.image(
            "linked.tar", link("out", f"../../../../..{outside}"), link("door", "/proc/1/root/tmp")
        )
        tarball = self.mountable("data.tar", file("data"))
        for target in ("/door/deep", "/bin/id"):
            mounts = [f"{tarball} {target} READWRITE"]
            self.assert_refused(self.try_to_launch(mounts=mounts, base_image="linked.tar"), 409)
        mounts = [f"{tarball} /out/deep READWRITE"]
        out = self.inside(f"ls {outside}/deep", mounts=mounts, base_image="linked.tar")
        self.assertEqual(out, "data\n")
        self.image("temporary.tar", link("tmp", str(outside)), link("run", f"../..{outside}/run"))
        out = self.inside("echo mine >/tmp/x; cat /tmp/x", base_image="temporary.tar")
        self.assertEqual(out, "mine\n")
        self.assertEqual(os.listdir(outside), [])

    def test_system_v(self) -> None:
        """The host's System V shared memory can't be found."""
        libc = ctypes.CDLL(None, use_errno=True)
        key = 0x7C000000 | os.getpid()
        segment = libc.shmget(key, 4096, IPC_CREAT | 0o666)
        self.assertLessEqual(0, segment)
        self.addCleanup(libc.shmctl, segment, IPC_RMID, None)
        said = self.probe(f"""
tell(found=libc.shmget({key}, 4096, 0), why=errno.errorcode[ctypes.get_errno()],
     listed=open("/proc/sysvipc/shm").read().count("\\n"))
""")
        self.assertEqual(said, {"found": -1, "why": "ENOENT", "listed": 1})

    def test_posix_ipc(self) -> None:
        """The host's POSIX shared memory and message queues can't be found."""
        name = f"/txcontain-test-{os.getpid()}"
        libc = ctypes.CDLL(None, use_errno=True)
        queue = libc.mq_open(name.encode(), os.O_CREAT | os.O_RDWR, 0o666, None)
        self.assertLessEqual(0, queue)
        self.addCleanup(libc.mq_unlink, name.encode())
        self.addCleanup(os.close, queue)
        with open(f"/dev/shm{name}", "w"):
            self.addCleanup(os.unlink, f"/dev/shm{name}")
        said = self.probe(f"""
tell(queue=libc.mq_open({name.encode()!r}, os.O_RDWR), why=errno.errorcode[ctypes.get_errno()],
     shared=os.listdir("/dev/shm"), queues=os.listdir("/dev/mqueue"))
""")
        self.assertEqual(said, {"queue": -1, "why": "ENOENT", "shared": [], "queues": []})

    def test_what_is_counted_for_a_user(self) -> None:
        """A container without a user namespace leaves the host's root its share."""
        instance = self.start_probe("""
how_many(lambda n: libc.mq_open(b"/q%d" % n, os.O_CREAT | os.O_RDWR, 0o600, None))
tell(why=errno.errorcode[ctypes.get_errno()])
signal.pause()
""")
        wait_until(lambda: self.written(instance), "it has told")
        self.assertEqual(json.loads(self.written(instance)), {"why": "EMFILE"})
        libc = ctypes.CDLL(None)
        path = f"/txcontain-test-{os.getpid()}".encode()
        queue = libc.mq_open(path, os.O_CREAT | os.O_RDWR, 0o666, None)
        self.addCleanup(libc.mq_unlink, path)
        self.assertLessEqual(0, queue)
        os.close(queue)
        names = ["RLIMIT_MSGQUEUE", "RLIMIT_SIGPENDING", "RLIMIT_MEMLOCK"]
        said = self.probe(f"""
tell(**{{name: resource.getrlimit(getattr(resource, name)) for name in {names}}})
""")
        for name in names:
            soft, hard = said[name]
            ours = resource.getrlimit(getattr(resource, name))[1]
            self.assertTrue(soft == hard and (hard < ours or ours == resource.RLIM_INFINITY), name)

    def test_end_of_the_monitor(self) -> None:
        """A container that has reset its death signal still dies with its monitor."""
        instance = self.start_probe("""
PR_SET_PDEATHSIG = 1
libc.prctl(PR_SET_PDEATHSIG, 0)
tell(ready=True)
signal.pause()
""")
        wait_until(lambda: self.written(instance), "it is ready")
        process = self.ask("GET", f"/instances/{instance}").json["pid"]
        monitor = int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
        os.kill(monitor, signal.SIGKILL)
        wait_until(lambda: not Path(f"/proc/{process}").exists(), "the container has ended")
        wait_until(lambda: not self.running(), "the manager knows")

    def test_the_hosts_network_is_shared_by_design(self) -> None:
        """With the host's network its abstract sockets can be reached, as docs/security.md says."""
        self.assertEqual(self.reach("host"), {"abstract": "done", "tcp": "done"})

    def test_abstract_sockets(self) -> None:
        """Without it, neither the host's abstract sockets nor its loopback can be reached."""
        self.assertEqual(self.reach("none"), {"abstract": "ECONNREFUSED", "tcp": "ECONNREFUSED"})

    def reach(self, network: str) -> dict[str, str]:
        """The results of connecting to an abstract socket of the host, and to the manager."""
        name = f"txcontain-test-{os.getpid()}"
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("\0" + name)
            server.listen()
            text = f"""
tell(abstract=attempt(socket.socket(socket.AF_UNIX).connect, "\\0{name}"),
     tcp=attempt(socket.socket().connect, ("127.0.0.1", {self.port})))
"""
            return self.probe(text, network=network)


class DescriptorTests(ManagerCase):
    """What the init has open when the program gets control."""

    PLAIN: ClassVar = {"network": "host"}
    VARIANTS: ClassVar[list[dict[str, Any]]] = [
        PLAIN,
        {"network": "none"},
        {"writable_root": True},
        {"limits": {"disk": "16M"}},
        {"startup_owner": "worker"},
        {"limits": {"files": 64}, "restart": "always"},
        {"mounts": ["data.tar /data READ", "data.tar /data/more READWRITE"]},
        {"init": True},
    ]

    def add_images(self) -> None:
        """And an image without any program: the init itself stays there."""
        super().add_images()
        pack(self.folder / "base_images/bare.tar", file("etc/passwd", PASSWD))
        self.mountable("data.tar", file("data"))

    def try_variants(self, *variants: dict[str, Any]) -> None:
        """Fail if an init or a script of one of these configs has more than its streams open."""
        look = "#!/bin/sh\nfor each in /proc/1/fd/* /proc/$$/fd/*; do echo $each; done\n"
        for keys in variants:
            idle = self.upload(base_image="bare.tar", **keys)
            script = self.upload(**self.job(look, **{**keys, "restart": "no"}))
            for _ in range(self.launches):
                instance = self.launch_again(idle)
                pid = self.ask("GET", f"/instances/{instance}").json["pid"]
                self.assertIn("python", os.readlink(f"/proc/{pid}/exe"))
                self.assertEqual(sorted(os.listdir(f"/proc/{pid}/fd")), ["0", "1", "2"], keys)
                out = self.output_of(self.launch_again(script)).split()
                seen = {os.path.basename(each) for each in out}
                own = {"3", "10", "255"}  # of the shell's: the folder that it reads, the script
                self.assertEqual(seen - own, {"0", "1", "2"}, keys)
            self.assertEqual(self.ask("DELETE", "/destroyall").status, 200)

    def launch_again(self, config: dict[str, str]) -> str:
        """Launch a config that is stored; return the instance's name."""
        answer = self.ask("POST", "/launch", config)
        self.assertEqual(answer.status, 200, answer.reason)
        return answer.json["instance"]

    launches = 1

    def test_every_variant(self) -> None:
        """Only the three streams are open, whatever the config says; so it is with warm inits."""
        self.try_variants(*self.VARIANTS)

    @needs_networks
    def test_private_network(self) -> None:
        """No other is with a network of its own."""
        self.try_variants({"network": "private"})

    @needs_user_namespaces
    def test_user_namespace(self) -> None:
        """No other is with a user namespace of its own."""
        self.try_variants({"user_namespace": True})


class WarmDescriptorTests(DescriptorTests):
    """The same of inits that were warm, and of those that were prepared."""

    pool = 2
    launches = 4


# To be run in namespaces of its own: what a plan mounts, where the host has a mount at a path.
JAIL = """
import marshal, socket, subprocess, sys
from txcontain.container import init

subprocess.run(["mount", "-t", "tmpfs", "-o", "suid,dev,exec", "below", sys.argv[1]], check=True)
container = init.Container(init.Kernel(), socket.socket())
for op, arguments in marshal.load(sys.stdin.buffer):
    getattr(container, op)(**arguments)
print(open("/proc/self/mountinfo").read())
"""


# The same for what Python looks for when the root is another one: here with files of the image's.
LIBRARY = """
import os, subprocess, sys
from txcontain.container import init

root = sys.argv[1]
subprocess.run(["mount", "--make-rprivate", "/"], check=True)
subprocess.run(["mount", "-t", "tmpfs", "image", root], check=True)
for folder in {os.path.dirname(os.__file__), *sys.path}:
    os.makedirs(root + folder + "/encodings", exist_ok=True)
    for name in ("colorsys", "traceback", "linecache", "encodings/cp037"):
        with open(f"{root}{folder}/{name}.py", "w") as file:
            file.write("import os; os.write(1, b'this is the image')")
shown = root + init.__file__
os.makedirs(os.path.dirname(shown), exist_ok=True)
with open(shown, "w") as file:
    file.write("raise SystemExit('this is the image')\\n" * 2000)
init.Kernel().pivot_root(root)
for attempt in (lambda: __import__("colorsys"), lambda: "x".encode("cp037")):
    try:
        attempt()
    except (ImportError, LookupError):
        os.write(1, b"refused ")
init.Kernel().open_beneath(-1, "x", 0)
"""


class LibraryTests(SynchronousTestCase):
    """What Python itself opens by a path."""

    @needs_root
    def test_nothing_of_the_image_is_imported(self) -> None:
        """Once the image is the root, no module of it takes the place of one of Python's.

        Nor is a file of it shown as where an error happened.
        """
        root = tempfile.mkdtemp(dir=DISK)
        self.addCleanup(os.rmdir, root)
        result = subprocess.run(
            ["unshare", "--mount", sys.executable, "-c", LIBRARY, root],
            env={"PATH": os.defpath, "PYTHONPATH": str(PROJECT)},
            capture_output=True,
            text=True,
        )
        self.assertEqual(result.stdout, "refused refused ", result.stderr)
        self.assertIn("Error", result.stderr)
        self.assertNotIn("image", result.stderr)


@needs_root
class JailTests(SynchronousTestCase):
    """The jail of tar(1)."""

    def test_mounts_below_the_hosts_programs(self) -> None:
        """All that the jail of tar(1) shows of the host is read-only, with all mounts below it."""
        tar, sh = find("tar"), find("sh")
        folder = tempfile.mkdtemp(dir=DISK)
        self.addCleanup(shutil.rmtree, folder)
        for name in ("below", "layer", "scratch"):
            os.mkdir(f"{folder}/{name}")
        Path(f"{folder}/tarball").touch()
        paths = f"{folder}/layer", f"{folder}/scratch", "/.hidden"
        self.look(folder, tar, make_unpacking_plan(f"{folder}/tarball", *paths, tar))
        self.look(folder, tar, make_merging_plan([f"{folder}/below"], *paths, tar, sh))

    def look(self, folder: str, tar: Program, plan: Plan) -> None:
        """Fail unless it is so of a plan, which works in this folder."""
        entries = [entry for path in tar.folders for entry in os.scandir(path)]
        below = next(entry.path for entry in entries if entry.is_dir(follow_symlinks=False))
        mounting = plan[: next(i for i, (op, _) in enumerate(plan) if op == "input")]
        command = ["unshare", "--mount", "--pid", "--fork", sys.executable, "-c", JAIL, below]
        result = subprocess.run(
            command,
            input=marshal.dumps(mounting),
            stdout=subprocess.PIPE,
            check=True,
            env={"PATH": os.defpath, "PYTHONPATH": str(PROJECT)},
        )
        root = f"{folder}/scratch/root"
        mounts = [line.split()[4:6] for line in result.stdout.decode().splitlines() if line]
        jail = {
            path[len(root) :]: {*flags.split(",")}
            for path, flags in mounts
            if path.startswith(root)
        }
        self.assertIn(f"/.hidden{below}", jail)
        writable = {path for path, flags in jail.items() if "ro" not in flags}
        self.assertEqual(writable, {"", "/.hidden"})  # the layer, and what is all in memory
        powerful = {path for path, flags in jail.items() if not {"nosuid", "nodev"} <= flags}
        self.assertEqual(powerful, set())


class ImageTests(SharedManagerCase, ProbeCase):
    """What an image could bring along."""

    def test_homes_behind_descriptors(self) -> None:
        """A home that is a magic link of /proc is not entered: it would lead out of the root.

        This was CVE-2024-21626, by which containers of runc worked in folders of the host.
        """
        doors = [
            *(f"/proc/self/fd/{number}" for number in range(10)),
            "/proc/self/root",
            "/proc/self/cwd",
            "/proc/1/root/tmp",
            "/way/out",
        ]
        users = "".join(f"u{i}:x:0:0::{home}:/bin/sh\n" for i, home in enumerate(doors))
        self.image("doors.tar", file("etc/passwd", users), link("way", "/proc/self/root/../.."))
        mounts = [f"{self.mountable('data.tar', file('data.txt', 'as it was'))} /data READ"]
        for number, home in enumerate(doors):
            job = self.job(
                "#!/bin/sh\nreadlink /proc/$$/cwd; echo changed 2>&- >../0-upper/data.txt\n"
                "cat /data/data.txt\n",
                mounts=mounts,
                startup_owner=f"u{number}",
                base_image="doors.tar",
            )
            self.assertEqual(self.output_of(self.launch(**job)), "/\nas it was", home)

    def test_users_from_nowhere(self) -> None:
        """A passwd file that is a link into /proc or to a device is not read."""
        unread = ctypes.CDLL(None).klogctl
        before = unread(SYSLOG_SIZE_UNREAD, None, 0)
        for target in ("/proc/kmsg", "/proc/self/environ", "/dev/zero", "/dev/tty", "/dev/ptmx"):
            name = self.image(f"kmsg{NEW_NUMBER()}.tar", link("etc/passwd", target))
            out = self.inside("id -u; echo $HOME", base_image=name)
            self.assertEqual(out, "0\n/\n", target)
        self.assertLessEqual(before, unread(SYSLOG_SIZE_UNREAD, None, 0))

    def test_mounts_led_astray(self) -> None:
        """No link of an image makes a tarball be mounted in /proc, /sys, /dev, or at the top."""
        targets = {
            "proc": "/proc/sys",
            "self": "/proc/self",
            "sys": "/sys/kernel",
            "dev": "/dev",
            "shm": "dev/shm",
            "top": "/",
        }
        links = [link(f"to-{name}", target) for name, target in targets.items()]
        twice = link("to-twice", "to-proc/kernel")
        base = self.image("astray.tar", *links, twice)
        tarball = self.mountable("cap.tar", file("cap_last_cap", "0\n"))
        for name in (*targets, "twice", "proc/kernel", "dev/deep/deeper"):
            for access in ("READ", "READWRITE"):
                answer = self.try_to_launch(
                    base_image=base, mounts=[f"{tarball} /to-{name} {access}"]
                )
                self.assert_refused(answer, 409, "leads to /", "which is the container's own")

    def test_folders_named_like_options(self) -> None:
        """A folder that is named like an option of its overlay brings in no folder of the host.

        /tmp and /run may be links, and where they lead is part of an overlay.
        """
        outside = self.folder / "outside"
        outside.mkdir()
        (outside / "secret").touch()
        for top in (f"a:{outside}", f"a,lowerdir={outside}", f"a\\:{outside}", f"a,x{outside}"):
            members = [folder("a"), folder("a\\"), folder(top), file(f"{top}/own")]
            name = self.image(f"named{NEW_NUMBER()}.tar", *members, link("tmp", top))
            out = self.inside("ls /tmp/; touch /tmp/new", base_image=name)
            self.assertEqual(out, "own\n", top)
        self.assertEqual(os.listdir(outside), ["secret"])

    def test_mount_that_covers_its_own_way(self) -> None:
        """A READ mount is read-only even if its target leads elsewhere by now."""
        base = self.image("turn.tar", folder("a"), folder("b"), link("a/turn", "."))
        mounts = [f"{self.mountable('cover.tar', link('turn', '/b'), file('x'))} /a/turn READ"]
        out = self.inside("ls /a; touch /a/new 2>&1", base_image=base, mounts=mounts)
        self.assertTrue(out.startswith("turn\nx\n"), out)
        self.assertIn("Read-only file system", out)

    def test_device_in_an_image(self) -> None:
        """A device node of an image is left out, wherever it lies."""
        members = []
        for name in ("disk", "dev/disk", "etc/disk"):
            disk = special(name, b"4")
            disk[0].devmajor, disk[0].devminor = 254, 0
            members.append(disk)
        self.image("disk.tar", folder("dev"), *members)
        out = self.inside("ls /disk /dev/disk /etc/disk", base_image="disk.tar")
        self.assertEqual(out, "")
