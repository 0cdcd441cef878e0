"""What a program finds in its container, whatever image it comes with."""

from __future__ import annotations

import http.client
import socket
from pathlib import Path
from typing import Any

from tests.integration.harness import (
    PATIENCE,
    ManagerCase,
    SharedManagerCase,
    fingerprint,
    free_port,
    wait_until,
)
from tests.integration.tarballs import Member, file, folder, link, pack, small_image
from tests.support import needs_networks, needs_user_namespaces

LINKS = (
    folder("run"),
    *(link(f"etc/{name}", f"../run/nowhere/{name}") for name in ("hosts", "resolv.conf")),
    link("etc/hostname", "/nowhere/hostname"),
)
LOOK = 'for name in hosts resolv.conf hostname; do echo "[$name]"; cat "/etc/$name"; done'


class Names(ManagerCase):
    """/etc/hosts, /etc/resolv.conf and /etc/hostname."""

    def assert_named(self, resolv_conf: str, address: str = "127.0.1.1", **keys: Any) -> None:
        """Fail unless a container finds its names, and its image's layer is unchanged."""
        instance = self.launch(**self.job(f"#!/bin/sh\n{LOOK}\n", **keys))
        hosts = f"127.0.0.1 localhost\n::1 localhost\n{address} {instance}\n"
        self.assertEqual(
            self.output_of(instance),
            f"[hosts]\n{hosts}[resolv.conf]\n{resolv_conf}[hostname]\n{instance}\n",
        )

    def image_of(self, name: str, *members: Member) -> str:
        """Make a base image of just these members."""
        pack(self.folder / "base_images" / name, *members)
        return name

    @property
    def hosts_own(self) -> str:
        return Path("/etc/resolv.conf").read_text()

    def test_the_hosts_network(self) -> None:
        """It asks the host's name servers, even if the image has links to nowhere."""
        image = self.image("links.tar", *LINKS)
        self.assert_named(self.hosts_own, base_image=image)
        layers = self.state / "layers"
        before = fingerprint(layers)
        for writable in (False, True):
            self.assert_named(self.hosts_own, base_image=image, writable_root=writable)
        now = fingerprint(layers)
        self.assertEqual({path: now[path] for path in before}, before)
        self.assertTrue(all(path.is_symlink() for path in layers.glob("*/etc/hosts")))

    def test_no_network(self) -> None:
        """It knows its own name, and has no name server."""
        nothing = "# There is no network, and so no name server.\n"
        self.assert_named(nothing, base_image=self.image("links.tar", *LINKS), network="none")

    @needs_networks
    def test_a_private_network(self) -> None:
        """It knows its address by its name, and the manager's resolver."""
        image = self.image("links.tar", *LINKS)
        resolver = "nameserver 10.87.0.1\nsearch .\n"
        self.assert_named(resolver, "10.87.0.2", base_image=image, network="private")

    @needs_user_namespaces
    def test_a_user_namespace(self) -> None:
        """The same in a user namespace."""
        image = self.image("links.tar", *LINKS)
        self.assert_named(self.hosts_own, base_image=image, user_namespace=True)

    def test_no_etc(self) -> None:
        """If the image has no /etc, or a link to nowhere, it is made, and never outside."""
        members = [one for one in small_image() if not one[0].name.startswith("etc")]
        self.assert_named(self.hosts_own, base_image=self.image_of("no.tar", *members))
        outside = link("etc", "../../../../../tmp/txcontain-nowhere")
        image = self.image_of("out.tar", *members, outside)
        self.assert_named(self.hosts_own, base_image=image)
        self.assertFalse(Path("/tmp/txcontain-nowhere").exists())

    def test_read_only(self) -> None:
        """If the root is read-only, a program can't change them."""
        said = self.inside("echo x >>/etc/hosts || echo refused")
        self.assertEqual(said, "refused\n")

    def test_a_folder(self) -> None:
        """A folder in a file's place is an image's fault, and the answer says so."""
        answer = self.try_to_launch(base_image=self.image("folder.tar", folder("etc/hosts")))
        self.assert_refused(answer, 409, "/etc/hosts", "a folder where a file belongs")


class Owners(SharedManagerCase):
    """Who a program is."""

    def test_names_and_numbers(self) -> None:
        """A user comes with its groups, or with one that is named; a number is a number."""
        passwd = "root:x:0:0::/:/bin/sh\nweb:x:33:34::/:/bin/sh\n1000:x:0:0::/:/bin/sh\n"
        group = "root:x:0:1000\nlog:x:4:web\n"
        image = self.image("users.tar", file("etc/passwd", passwd), file("etc/group", group))
        for owner, wanted in (
            ("web", "33 34 34 4"),
            ("web:log", "33 4 4"),
            ("33:0", "33 0 0"),
            ("1000", "1000 1000 1000"),
            ("4294967294", "4294967294 4294967294 4294967294"),
        ):
            said = self.inside("id -u; id -g; id -G", base_image=image, startup_owner=owner)
            self.assertEqual(said.split(), wanted.split(), owner)

    def test_a_root_that_is_shut(self) -> None:
        """If the image's top folder lets its owner in only, the answer says what to do."""
        image = self.image("shut.tar", folder(".", 0o700))
        answer = self.try_to_launch(**self.job("#!/bin/sh\n", base_image=image, startup_owner="33"))
        self.assert_refused(answer, 409, "top folder (./) of the image", "mode 755")


class Variables(SharedManagerCase):
    """startup_env."""

    def test_three_ways(self) -> None:
        """An object and a list are taken literally; in a string, variables are filled in."""
        value = "a;${B} 'c'\n\t\u00a0"
        for written in ({"A": value}, [f"A={value}"]):
            self.assertEqual(self.inside('printf %s "$A"', startup_env=written), value)
        said = self.inside('printf %s "$A"', startup_env="B=b;A=a,${B} 'c'\n\t\u00a0")
        self.assertEqual(said, "a,b 'c'\n\t\u00a0")


class Scripts(SharedManagerCase):
    """What is run."""

    def test_a_late_interpreter(self) -> None:
        """A script whose #! the kernel does not see is refused, and not run by a shell."""
        for before in ("\ufeff", "\n", "# Licence\n"):
            answer = self.try_to_launch(**self.job(f"{before}#!/bin/sh\n"))
            self.assert_refused(answer, 409, "not at the very beginning")

    def test_arguments(self) -> None:
        """Arguments behind a path are not a part of it, and the answer says so."""
        answer = self.try_to_launch(startup_script="/bin/sleep 1000")
        self.assert_refused(answer, 409, "takes no arguments")


class Mounts(SharedManagerCase):
    """What is where."""

    def test_a_child_before_its_parent(self) -> None:
        """A mount below another one is seen, also if the config names it first."""
        outer = self.mountable("outer.tar", file("name", "outer\n"))
        inner = self.mountable("inner.tar", file("name", "inner\n"))
        said = self.inside(
            "cat /a/b/name /a/name", mounts=[f"{inner} /a/b READ", f"{outer} /a READWRITE"]
        )
        self.assertEqual(said, "inner\nouter\n")

    def test_sizes(self) -> None:
        """/tmp and /dev/shm have the sizes that the config gives them, and stay as safe."""
        look = "grep -E '^[a-z]+ (/tmp|/dev/shm) ' /proc/mounts"
        for sizes, shm, tmp in (
            ({}, "65536k", "262144k"),
            ({"shm_size": "1M", "tmp_size": "2M"}, "1024k", "2048k"),
            ({"shm_size": "1G", "tmp_size": "1G"}, "1048576k", "1048576k"),
        ):
            said = self.inside(look, **sizes)
            self.assertIn(f"/tmp tmpfs rw,nosuid,nodev,relatime,size={tmp}", said)
            self.assertIn(f"/dev/shm tmpfs rw,nosuid,nodev,noexec,relatime,size={shm}", said)


class Ends(SharedManagerCase):
    """How a container is asked to end."""

    def last_words(self, text: str, **keys: Any) -> str:
        """Destroy a container that waits after a script; return what it wrote from then on."""
        script = f"#!/bin/sh\n{text}\necho done; sleep 60 & wait\n"
        instance = self.launch(**self.job(script, stop_timeout=60, **keys))
        wait_until(lambda: self.log_of(instance).endswith("done\n"), "the script is done")
        connection = http.client.HTTPConnection("localhost", self.port, timeout=PATIENCE)
        self.addCleanup(connection.close)
        connection.request("GET", f"/instances/{instance}/logs?follow=1")
        answer = connection.getresponse()
        self.assertEqual(self.ask("DELETE", f"/destroy/{instance}").status, 200)
        return answer.read().decode().partition("done\n")[2]

    def test_a_master(self) -> None:
        """Only PID 1 is asked, if it handles the signal: its workers end when it tells them."""
        said = self.last_words(
            """trap 'kill -USR1 $worker; wait $worker; echo master; exit' TERM
            (trap 'echo interrupted' TERM; trap 'echo worker; exit' USR1; echo >/tmp/ready
             while :; do sleep 0.1; done) &
            worker=$!
            until [ -e /tmp/ready ]; do sleep 0.05; done"""
        )
        self.assertEqual(said, "worker\nmaster\n")

    def test_another_signal(self) -> None:
        """A program that wants another stop signal gets that."""
        script = "trap 'echo stopped; exit' QUIT; trap 'echo wrong' TERM"
        for init in (False, True):
            said = self.last_words(script, stop_signal="SIGQUIT", init=init)
            self.assertEqual(said, "stopped\n")


class Ports(SharedManagerCase):
    """PORT on the host's network."""

    def test_on_another_address(self) -> None:
        """A port that is taken at another address is free here."""
        for address, words in (
            ("127.0.0.2", "ended before it listened"),
            ("::1", "ended before it listened"),
            ("127.0.0.1", "is taken"),
            ("0.0.0.0", "is taken"),
        ):
            port, family = free_port(), socket.AF_INET6 if ":" in address else socket.AF_INET
            with socket.create_server((address, port), family=family):
                answer = self.try_to_launch(**self.job("", startup_env=f"PORT={port}"))
                self.assert_refused(answer, 409, f"port {port}", words)


class Inits(SharedManagerCase):
    """An init that looks after the script."""

    def test_zombies(self) -> None:
        """It reaps all that end; a program that is PID 1 need not do so."""
        orphan = """#!/bin/sh
(sleep 0.05 & echo $! >/tmp/orphan)
(read pid </tmp/orphan
 while grep -q '^State:.[^Z]' /proc/$pid/status; do sleep 0.01; done 2>/dev/null
 sleep 0.3; grep -h ^State /proc/[0-9]*/status 2>/dev/null; echo end) &
exec sleep 1000
"""
        for init, zombies in ((True, False), (False, True)):
            self.assertEqual("zombie" in self.seen_by(orphan, init=init), zombies)

    def seen_by(self, text: str, **keys: Any) -> str:
        """What a script has written, once that comes to its end."""
        instance = self.launch(**self.job(text, **keys))
        wait_until(lambda: self.log_of(instance).endswith("end\n"), "it has looked")
        return self.log_of(instance)

    def test_what_is_seen_of_it(self) -> None:
        """The list of processes shows nothing of the host or of the script."""
        look = "cat /proc/1/cmdline /proc/1/comm; readlink /proc/self/fd/* | grep socket"
        for owner in ("root", "worker"):
            said = self.inside(look, init=True, startup_owner=owner)
            self.assertEqual(said.replace("\0", ""), "initinit\n")

    def end_of(self, text: str) -> Any:
        """The exit status of a container with an init that runs a script."""
        instance = self.launch(**self.job(f"#!/bin/sh\n{text}\n", init=True))
        return self.ask("GET", f"/instances/{instance}/wait").json["exit"]["status"]

    def test_its_end(self) -> None:
        """It ends as the script does, whatever else still runs."""
        self.assertEqual(self.end_of("sleep 60 & exit 7"), 7)
        self.assertEqual(self.end_of("kill -KILL $$"), 128 + 9)

    def test_signals(self) -> None:
        """It passes signals on, also from inside; the script has its own process group."""
        script = "trap 'echo hello; heard=1' USR1; kill -USR1 1; "
        script += 'until [ "$heard" ]; do sleep 0.05; done; trap exit TERM; kill -TERM 0'
        self.assertEqual(self.inside(script, init=True), "hello\n")

    def test_a_script_that_is_not_there(self) -> None:
        """A launch that fails says why, as without an init."""
        answer = self.try_to_launch(startup_script="/nowhere", init=True)
        self.assert_refused(answer, 409, "there is no /nowhere in the container")
