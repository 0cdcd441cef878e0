"""Every launch that can't work says why, and leaves nothing; every hostile tarball does no harm."""

import os
import signal
import socket
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.integration.harness import (
    PATIENCE,
    PROJECT,
    Answer,
    ManagerCase,
    cgroups_of,
    command_of,
    fingerprint,
    free_port,
    processes_of,
    wait_until,
)
from tests.integration.tarballs import Member, file, folder, link, pack, script, special


class FailureCase(ManagerCase):
    """A test of launches that fail."""

    def assert_fails(self, *words: str, status: int = 409, **keys: object) -> Answer:
        """Fail unless a launch is refused for these reasons and leaves at most what tells them."""
        answer = self.try_to_launch(**keys)
        self.assert_refused(answer, status, *words)
        self.assert_only_failures_left(*words)
        self.assertEqual(self.running(), [])
        return answer

    def assert_script_fails(self, *words: str, script: Member, **keys: Any) -> None:
        """Fail unless a startup script is refused for these reasons."""
        tarball = self.mountable(f"{os.urandom(4).hex()}.tar", script, file("beside"))
        mounts = [f"{tarball} /job READ"]
        self.assert_fails(*words, mounts=mounts, startup_script="/job/run", **keys)


class StartTests(ManagerCase):
    """A second manager, which can't listen where the first does."""

    def start_another(self, *options: str) -> str:
        """Start one that has to fail; return what it has written."""
        twistd = Path(sys.executable).with_name("twistd")
        state = self.folder / "another"
        result = subprocess.run(
            [twistd, "-n", "--pidfile=", "containerd-lite", "--state", state, *options],
            cwd=self.folder,
            env={"PATH": os.defpath, "PYTHONPATH": str(PROJECT)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        self.assertEqual(result.returncode, 1)
        self.assertEqual(cgroups_of(state), [])
        return result.stdout + result.stderr

    def test_port(self) -> None:
        """It says in one sentence who has its port, and leaves no cgroup."""
        said = self.start_another("--port", str(self.port)).splitlines()[-1]
        self.assertIn(f"port {self.port} is taken by ", said)
        self.assertIn(f"(process {self.manager.pid}): end that, or give", said)

    def test_unix_socket(self) -> None:
        """The same for a path that is not there, or is taken by a file."""
        (self.folder / "small").touch()
        for path, why in (("none/s", "there is no folder"), ("small", "something that is no")):
            said = self.start_another("--port", "0", "--unix-socket", path)
            self.assertIn(f"--unix-socket {self.folder}/{path} ", said)
            self.assertIn(why, said)
            self.assertNotIn("Traceback", said)


class ConfigTests(FailureCase):
    """What a config names that is not there."""

    def test_unknown_base_image(self) -> None:
        """An unknown base image is named, with the folder where it should be."""
        self.assert_fails("there is no nothing.tar.gz in base_images/", base_image="nothing.tar.gz")

    def test_unknown_tarball(self) -> None:
        """An unknown tarball is named, with the folder where it should be."""
        self.assert_fails(
            "there is no nothing.tar in mountables/", mounts=["nothing.tar /data READ"]
        )

    def test_folder_for_a_tarball(self) -> None:
        """A folder in a tarball's place is none."""
        (self.folder / "mountables/dir.tar").mkdir()
        self.assert_fails("dir.tar is not a file", mounts=["dir.tar /data READ"])

    def test_no_tarball(self) -> None:
        """What is no tarball, or but a part of one, is named with what tar says of it."""
        whole = self.folder / "whole.tar.gz"
        with tarfile.open(whole, "w:gz") as tarball:
            tarball.add(os.__file__)
            tarball.add(tarfile.__file__)
        content = whole.read_bytes()
        for name, part in (
            ("garbage.tar", os.urandom(10_000)),
            ("text.tar", b"this is a text\n"),
            ("cut.tar.gz", content[: len(content) // 2]),
            ("damaged.tar.gz", content[:100] + b"\0" * 100 + content[200:]),
        ):
            (self.folder / "mountables" / name).write_bytes(part)
            self.assert_fails(
                f"unpacking {name}", "tar: ", "whole tarball", mounts=[f"{name} /data READ"]
            )
            self.assertEqual(list(self.state.glob("layers/*[0-9a-f]")), self.known_layers())

    def known_layers(self) -> list[Path]:
        """Only the layer of the small image."""
        return [path for path in self.state.glob("layers/*") if (path / "etc/passwd").exists()]

    def test_mended_tarball(self) -> None:
        """Once a tarball has been mended, the same config launches."""
        (self.folder / "mountables/data.tar").write_bytes(b"garbage")
        key = self.upload(mounts=["data.tar /data READ"])
        self.assert_refused(self.ask("POST", "/launch", key), 409, "data.tar")
        self.mountable("data.tar", file("a"), file("b"))
        self.assertEqual(self.ask("POST", "/launch", key).status, 200)

    def test_unknown_owner(self) -> None:
        """A user that the image does not know is named, though the host may know him."""
        for owner in ("nobody", "daemon", "no-one"):
            self.assert_fails(f"no user '{owner}'", "/etc/passwd", startup_owner=owner)


class ScriptTests(FailureCase):
    """A startup script that can't be run."""

    def test_missing(self) -> None:
        """A script that is missing is named."""
        self.assert_fails("there is no /no/such/script", startup_script="/no/such/script")

    def test_not_executable(self) -> None:
        """A script without the x bit says so, and how to set it."""
        self.assert_script_fails(
            "/job/run is not executable", "chmod +x", script=file("run", "#!/bin/sh\n")
        )

    def test_interpreter_missing(self) -> None:
        """A script whose interpreter is missing says which one."""
        self.assert_script_fails(
            "interpreter /usr/bin/python9 is not in the container",
            script=script("run", "#!/usr/bin/python9\n"),
        )

    def test_windows_line_ends(self) -> None:
        """A script with Windows line ends says so."""
        self.assert_script_fails("Windows line ends", script=script("run", "#!/bin/sh\r\nid\r\n"))

    def test_wrong_architecture(self) -> None:
        """A program for another machine says for which."""
        machine, name = (183, "arm64") if os.uname().machine == "x86_64" else (62, "x86-64")
        header = b"\x7fELF\2\1\1" + bytes(9) + b"\2\0" + machine.to_bytes(2, "little") + bytes(44)
        self.assert_script_fails(f"is built for {name}", script=file("run", header, 0o755))

    def test_no_program(self) -> None:
        """A file that is neither a script nor a program says so."""
        self.assert_script_fails("can't run", script=file("run", b"\0\1\2" * 99, 0o755))

    def test_dangling_link(self) -> None:
        """A script that is a link to nowhere says where to, also where the host has that file."""
        for target in ("/no/such/file", __file__):
            self.assert_script_fails(f"symbolic link to {target}", script=link("run", target))

    def test_folder(self) -> None:
        """A folder, or a fifo, is no script."""
        for kind in (tarfile.DIRTYPE, tarfile.FIFOTYPE):
            self.assert_script_fails("not a regular file", script=special("run", kind))

    def test_not_for_this_owner(self) -> None:
        """A script that its owner may not run says so."""
        self.assert_script_fails(
            "may not be run by this startup_owner",
            script=file("run", "#!/bin/sh\n", 0o700),
            startup_owner="worker",
        )

    def test_no_shell(self) -> None:
        """A script without a #! line, in an image without a shell, says what is missing."""
        pack(self.folder / "base_images/bare.tar", folder("etc"), file("etc/hostname"))
        self.assert_script_fails(
            "/bin/sh", script=script("run", "echo hello\n"), base_image="bare.tar"
        )


class ListeningTests(FailureCase):
    """A script that is to listen on a PORT."""

    def test_ended_before(self) -> None:
        """A script that ends before it listens says with what status, and its last words."""
        self.assert_fails(
            "/job/run ended before it listened on port",
            "exit status 3",
            "no disk\nno hope",
            **self.job("echo no disk >&2; echo no hope >&2; exit 3"),
            startup_env=f"PORT={free_port()}",
        )

    def test_killed_before(self) -> None:
        """A script that is killed before it listens says by which signal."""
        endless = self.job("#!/bin/sh\nwhile :; do sleep 1; done\n")
        with ThreadPoolExecutor() as threads:
            killed = threads.submit(self.kill_script)
            self.assert_fails(
                "killed by SIGKILL",
                "it wrote nothing to stderr",
                **endless,
                startup_env=f"PORT={free_port()}",
            )
            killed.result()

    def kill_script(self) -> None:
        """Kill the script of the container that is being launched, as soon as it runs."""
        os.kill(wait_until(self.find_script, "the script runs"), signal.SIGKILL)

    def find_script(self) -> int | None:
        """The pid of a script, as this host has it."""
        pids = processes_of(self.folder)
        return next((pid for pid in pids if "/job/run" in command_of(pid)), None)

    def test_many_last_words(self) -> None:
        """Of many last words the last are told, and no byte of them breaks the answer."""
        self.assert_fails(
            "the end \ufffd",
            **self.job(
                "i=0; while [ $i -lt 999 ]; do echo line $i >&2; i=$((i+1)); done\n"
                "printf 'Set-Cookie: x\\r\\n\\r\\nthe end \\377' >&2; exit 1"
            ),
            startup_env=f"PORT={free_port()}",
        )

    def test_port_of_the_host(self) -> None:
        """A port that a program of the host has says by which program and process."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            comm = Path("/proc/self/comm").read_text().strip()
            self.assert_fails(
                f"port {server.getsockname()[1]} is taken",
                f"by {comm} (process {os.getpid()})",
                startup_env=f"PORT={server.getsockname()[1]}",
            )

    def test_port_of_an_instance(self) -> None:
        """A port that an instance is to have is that instance's, whether or not it listens yet."""
        port = free_port()
        key = self.upload(**self.job("sleep 60"), startup_env=f"PORT={port}")
        answer = self.ask("POST", "/launch", key)
        self.assertEqual(answer.status, 200, "a script that does not listen is left running")
        again = self.ask("POST", "/launch", key)
        self.assert_refused(again, 409, f"port {port} is taken", answer.json["instance"])
        self.assertEqual(self.running(), [answer.json["instance"]])


class HostileTarballTests(FailureCase):
    """Tarballs that try to reach out of the folder that they are unpacked in."""

    def setUp(self) -> None:
        """Have a folder outside, with a file in it."""
        super().setUp()
        self.outside = self.folder / "outside"
        self.outside.mkdir()
        (self.outside / "secret").write_text("secret")
        self.before = fingerprint(self.outside)

    def hostile(self) -> Iterator[tuple[str, list[Any]]]:
        """Tarballs by name: the member that reaches out, and what prepares it."""
        target = f"{self.outside}/reached"
        up = "../" * 12
        yield "parent", [file(up + target.lstrip("/"), "x")]
        yield "inner-parent", [folder("a"), file(f"a/{up}{target.lstrip('/')}", "x")]
        yield "absolute", [file(target, "x")]
        yield "through-link", [link("out", str(self.outside)), file("out/reached", "x")]
        yield "through-up", [link("out", up + str(self.outside)), file("out/reached", "x")]
        yield (
            "chain",
            [
                folder("d"),
                link("d/up", "../.."),
                link("e", f"d/up/{up}"),
                file(f"e{target}", "x"),
            ],
        )
        yield "over-link", [link("f", f"{self.outside}/secret"), file("f", "overwritten")]
        yield (
            "hard-link",
            [
                special("h", tarfile.LNKTYPE, f"{self.outside}/secret"),
                file("h", "overwritten"),
            ],
        )
        yield (
            "link-to-link",
            [
                link("s", f"{self.outside}/secret"),
                special("h", tarfile.LNKTYPE, "s"),
                file("h", "overwritten"),
            ],
        )
        yield "mode-through-link", [link("s", str(self.outside)), folder("s", mode=0o777)]

    def test_reach_out(self) -> None:
        """Whatever a tarball names, nothing outside of its own layer is made or changed."""
        for name, members in self.hostile():
            pack(self.folder / f"mountables/{name}.tar", *members, file("more"))
            answer = self.try_to_launch(mounts=[f"{name}.tar /data READ"])
            self.assertIn(answer.status, (200, 409), f"{name}: {answer.reason}")
            self.assertEqual(fingerprint(self.outside), self.before, name)
            self.assertEqual(sorted(os.listdir(self.folder)), self.usual(), name)
            for layer in self.state.glob("layers/*"):
                self.assertNotIn(b"secret", self.contents(layer), name)

    def usual(self) -> list[str]:
        """What lies beside the state folder."""
        return ["base_images", "manager.log", "mountables", "outside", "state"]

    def contents(self, layer: Path) -> bytes:
        """All regular files of a layer, one after the other."""
        files = (p for p in layer.rglob("*") if p.is_file() and not p.is_symlink())
        return b"".join(path.read_bytes() for path in files if path.stat().st_size < 99)

    def test_seen_from_inside(self) -> None:
        """A link that leads out of a mount shows the container's own files behind it."""
        self.mountable("links.tar", link("abs", "/etc/passwd"), link("up", "../" * 9 + "etc/group"))
        out = self.inside("cat /data/abs /data/up", mounts=["links.tar /data READ"])
        self.assertIn("worker:x:1000:1000", out)
        self.assertIn("crew:x:2000", out)

    def test_device_nodes(self) -> None:
        """No device node of a tarball is in a container; one that hides files is refused."""
        self.mountable("mark.tar", special("mark", tarfile.CHRTYPE), file("more"))
        self.assert_fails("mark.tar", "hides files", mounts=["mark.tar /data READ"])
        disk = special("disk", tarfile.BLKTYPE)
        self.mountable("nodes.tar", disk, file("more"))
        image = self.image("dev.tar", folder("dev"), special("dev/sda", tarfile.BLKTYPE))
        out = self.inside(
            "ls /data; test -e /dev/sda || echo none",
            base_image=image,
            mounts=["nodes.tar /data READ"],
        )
        self.assertEqual(out, "more\nnone\n")

    def test_too_deep(self) -> None:
        """A tarball of folders below folders without end is refused, and gone again."""
        deep = "/".join("d" * 400)
        self.mountable("deep.tar", folder(deep), file("more"))
        self.assert_fails("deep.tar", "deep", mounts=["deep.tar /data READ"])

    def test_setuid_on_the_host(self) -> None:
        """A setuid program in a layer is out of reach for users of the host."""
        self.launch(base_image=self.image("suid.tar", file("root-shell", "x", 0o4755)))
        self.assertEqual(self.state.stat().st_mode & 0o777, 0o700)

    def test_hostile_names(self) -> None:
        """Names of any bytes, as long as a file system takes, do no harm and are there."""
        names = ["new\nline", "tab\t", "-rf", "--help", "é", "x" * 255, " ", "$(id)", "*"]
        self.mountable("names.tar", *(file(name, "fine") for name in names))
        out = self.inside("cat /data/*", mounts=["names.tar /data READ"])
        self.assertEqual(out, "fine" * len(names))
