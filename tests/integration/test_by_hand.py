"""What `explain` prints, run beside the living container, makes the same container."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import stat
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tests.images.archives import image
from tests.integration.harness import (
    PATIENCE,
    cgroups_of,
    fingerprint,
    groups_at,
    wait_until,
)
from tests.integration.tarballs import file, small_image
from tests.integration.variants import VariantCase
from tests.support import needs_user_namespaces

# What the container made by hand has not as the real one has it.
DIFFERENCES = (
    "no filter of system calls, as no shell command loads one",
    "standard output and error are the caller's, and so is a terminal",
    "the address on the private network is a free one",
    "the device of a volume with a bound has another name",
    "PID 1 is a shell with `init`, so the script has another pid",
)
TELL = """\
for file in mountinfo status limits uid_map gid_map environ; do
    echo "== $file"
    cat /proc/self/$file
    echo
done
echo "== hostname"
cat /proc/sys/kernel/hostname /etc/hostname /etc/hosts /etc/resolv.conf
echo "== files"
ls -ln /dev /dev/pts /data /data/in /data/in/it /new/deep /srv /srv/deep /www 2>/dev/null
ls -ln /etc /etc/a /run/secrets 2>/dev/null
echo "== descriptors"
for one in /proc/$$/fd/*; do echo $one; done
echo "== network"
cat /proc/net/route /proc/sys/net/ipv4/ping_group_range
echo "== namespaces"
for kind in cgroup ipc mnt net pid user uts; do readlink /proc/self/ns/$kind; done
echo "== end"
sleep 60
"""
KINDS = "cgroup ipc mnt net pid user uts".split()
LIMITS = "memory.limit_in_bytes memory.max cpu.cfs_quota_us cpu.max pids.max".split()
COUNTED = r"Vm|Rss|Hugetlb|\w+_ctxt|Mems|Cpus|Speculation|SigQ|NSpid|NSpgid|NSsid|NStgid"
# Of /proc/self/status: counters, numbers of processes (see DIFFERENCES), the filter.
NOT_COMPARED = rf"({COUNTED}|Pid|PPid|Tgid|Ngid|Seccomp|Threads|FDSize|untag|Core|THP|Sig|Shd).*"


@contextlib.contextmanager
def by_hand(script: str, scratch: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a script in a scratch, in which nothing is left when it has ended."""
    (scratch / "script").write_text(script)
    with (
        open(scratch / "out", "wb") as out,
        subprocess.Popen(
            ["sh", scratch / "script"],
            env={"PATH": os.environ["PATH"], "TMPDIR": str(scratch)},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
        ) as process,
    ):
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)


def groups_by_hand(name: str) -> list[Path]:
    """The groups that the script with this scratch has made, in all hierarchies.

    Others run scripts too: other tests, at the same time.
    """
    return groups_at(f"txcontain/{name}")


def limits_in(groups: Iterable[Path]) -> list[str]:
    """The limits of a group, in each of its hierarchies."""
    files = [group / name for group in groups for name in LIMITS]
    return sorted(f"{file.name} {file.read_text()}" for file in files if file.exists())


def contents(tree: Path) -> dict[str, tuple[Any, ...]]:
    """All that a file tree holds, but for the times of folders, many of which no tarball names."""
    found = fingerprint(tree)
    return {path: (facts[:3] if stat.S_ISDIR(facts[0]) else facts) for path, facts in found.items()}


class ByHandTests(VariantCase):
    """Each variant of a config, as the manager makes it and by hand."""

    def setUp(self) -> None:
        super().setUp()
        self.scratch = self.folder / "scratch"
        self.scratch.mkdir()

    @needs_user_namespaces
    def test_every_variant(self) -> None:
        """Mounts, namespaces, ids, capabilities, limits, names, devices, files, environment and
        descriptors are those of the real container, in any two variants together.
        """
        differ = {}
        for number, keys in enumerate(self.variants()):
            if found := self.differences(before_launch=number % 2 == 0, **keys):
                differ[str(keys)] = found
        self.assertEqual(differ, {}, f"beside {DIFFERENCES}")

    def differences(self, *, before_launch: bool, **keys: Any) -> dict[str, Any]:
        """What is not the same in the container and in the one that `explain` says."""
        config = self.upload(**self.job(f"#!/bin/sh\n{TELL}", **keys))
        path = "/configs/{name}-{major}-{minor}/explain".format(**config)
        script = self.ask("GET", path) if before_launch else None
        launched = self.ask("POST", "/launch", config)
        self.assertEqual(launched.status, 200, launched.reason)
        instance = launched.json["instance"]
        script = script or self.ask("GET", f"/instances/{instance}/explain")
        self.assertEqual(script.status, 200, script.reason)
        wait_until(lambda: "== end" in self.log_of(instance), "it has told")
        real = self.told(self.log_of(instance))
        slot = self.ask("GET", f"/instances/{instance}").json["slot"]
        real["groups"] = limits_in(top / slot for top in cgroups_of(self.state))
        with by_hand(script.body.decode(), self.scratch) as process:
            out = self.scratch / "out"
            wait_until(
                lambda: "== end\n" in out.read_text() or process.poll() is not None, "it has told"
            )
            self.assertIsNone(process.poll(), out.read_text())
            ours = self.told(out.read_text())
            (name,) = (path.name for path in self.scratch.glob("by-hand.*"))
            ours["groups"] = limits_in(groups_by_hand(name))
        left = {path.name for path in self.scratch.iterdir()} - {"script", "out"}
        self.assertEqual((left, groups_by_hand(name)), (set(), []))
        self.assertEqual(self.ask("DELETE", f"/destroy/{instance}").status, 200)
        return {
            name: sorted({*lines} ^ {*ours.get(name, [])}) or (lines, ours.get(name))
            for name, lines in real.items()
            if lines != ours.get(name)
        }

    @needs_user_namespaces
    def test_an_exec(self) -> None:
        """A command that is run by hand is who the real one is, and as tightly held."""
        look = "while read -r line; do case $line in [UG]*|Cap*|NoNew*) echo $line; esac; done"
        command = ["sh", "-c", f"id; env; readlink /proc/$$/ns/user; {look} </proc/$$/status"]
        for keys in ({}, {"user_namespace": True}):
            instance = self.running_inside("", startup_owner="worker", network="none", **keys)
            path = f"/instances/{instance}/exec"
            real = self.ask("POST", path, {"command": command}).json["stdout"]
            words = "&".join(f"command={quote(word)}" for word in command)
            script = self.ask("GET", f"{path}/explain?{words}").body
            done = subprocess.run(["sh"], input=script, capture_output=True, check=True)
            self.assertEqual(done.stdout.decode(), real)

    def test_many_layers(self) -> None:
        """An image may have more layers than mount(8) takes the paths of."""
        layers = [small_image(), *([file(f"n{number}", "")] for number in range(130))]
        loaded = self.ask("PUT", "/images", image(layers).archive("deep:1"))
        self.assertEqual(loaded.status, 200, loaded.reason)
        config = self.upload(**self.job("#!/bin/sh\nls -d /n0 /n129\n", base_image="deep:1"))
        script = self.ask("GET", "/configs/{name}-{major}-{minor}/explain".format(**config))
        with by_hand(script.body.decode(), self.scratch) as process:
            said = (self.scratch / "out").read_text
            self.assertEqual((process.wait(PATIENCE), said()), (0, "/n0\n/n129\n"), said())

    def test_an_unpacking(self) -> None:
        """A layer that is unpacked by hand is the manager's."""
        before = {*self.state.glob("layers/*")}
        self.launch()
        (layer,) = (one for one in {*self.state.glob("layers/*")} - before if one.is_dir())
        script = self.ask("GET", "/unpacking/explain?tarball=small.tar")
        self.assertEqual(script.status, 200, script.reason)
        with by_hand(script.body.decode(), self.scratch) as process:
            said = (self.scratch / "out").read_text
            self.assertEqual(process.wait(PATIENCE), 0, said())
        unpacked = Path(said().split()[-1])
        self.assertEqual(*map(contents, (unpacked, layer)))

    def told(self, text: str) -> dict[str, list[str]]:
        """What a container has told, without what has to differ."""
        text = text.replace("\r\n", "\n")  # from a terminal
        text = re.sub(r"^c.* 136, +0 .*\n", "", text, flags=re.M)  # which is the caller's
        text = re.sub(r"^([cdlsp-][r-].*)", lambda row: " ".join(row[0].split()), text, flags=re.M)
        own = rf"{self.state}/instances/[\w-]+|{self.scratch}/by-hand\.\w+/own"
        memory = rf"{self.state}/run/scratch|{self.scratch}/by-hand\.\w+/memory"
        volume = rf"{self.state}/volumes/v/data|/\S*by-hand\.\w+/volume-1"
        for pattern, word in ((own, "OWN"), (memory, "MEMORY"), (volume, "VOLUME")):
            text = re.sub(pattern, word, text)
        text = re.sub(r"test-[0-9a-f]{8}", "NAME", text)
        text = re.sub(r"^\d+ \d+ \d+:\d+", "", text, flags=re.M)  # numbers of mounts
        text = re.sub(r"10\.87\.\d+\.\d+|fd[0-9a-f:]+::[0-9a-f:]+", "ADDRESS", text)
        text = re.sub(r"/dev/loop\d+|/proc/self/fd/\d+|/proc/\d+/", "", text)
        text = re.sub(
            r"\d+ (\w{3} +\d+ \d\d:\d\d) (hosts|resolv.conf)", r"\1 \2", text
        )  # addresses
        text = re.sub(r"\w{3} +\d+ \d\d:\d\d", "TIME", text)
        host = {os.readlink(f"/proc/self/ns/{kind}"): f"the host's {kind}" for kind in KINDS}
        text = re.sub(r"\w+:\[\d+\]", lambda match: host.get(match[0], "its own"), text)
        parts = re.split(r"^== (\w+)\n", text, flags=re.M)
        told = {
            name: lines.splitlines() for name, lines in zip(parts[1::2], parts[2::2], strict=True)
        }
        if "status" in told:
            told["status"] = [x for x in told["status"] if not re.match(NOT_COMPARED, x)]
        return told
