"""What configs say of the program that runs, and how they are kept and launched."""

from __future__ import annotations

import http.client
import json
import os
import signal

from tests.integration.harness import PATIENCE, ManagerCase, wait_until
from tests.integration.tarballs import file, folder, link, script


class CommandTests(ManagerCase):
    """A program with arguments, in place of a script."""

    def add_images(self) -> None:
        """Have programs in unusual places."""
        arguments = '#!/bin/sh\nprintf \'[%s]\' "$0" "$@"; echo; pwd\n'
        self.image(
            "small.tar",
            folder("opt"),
            script("opt/tell", arguments),
            file("opt/idle", "#!/bin/sh\n"),
            link("bin/lost", "/no/such/program"),
            folder("srv"),
            folder("srv/shut", 0o700),
        )

    def test_along_path(self) -> None:
        """It is found along the container's own PATH, gets its arguments as they are, and works in
        its folder."""
        command = ["tell", "a b", "", "$HOME;`id`", "é\n"]
        instance = self.launch(command=command, startup_env="PATH=/none:/opt", workdir="/srv")
        wanted = "[/opt/tell][a b][][$HOME;`id`][é\n]\n/srv\n"
        self.assertEqual(self.output_of(instance), wanted)

    def test_a_relative_path(self) -> None:
        """A path that is relative begins at the working folder."""
        instance = self.launch(command=["opt/tell"], workdir="/")
        self.assertEqual(self.output_of(instance), "[opt/tell]\n/\n")

    def test_explained(self) -> None:
        """The shell script that explains it has the command, and the folder."""
        instance = self.launch(command=["sleep", "60"], workdir="/srv")
        explained = self.ask("GET", f"/instances/{instance}/explain").body.decode()
        self.assertIn(" sleep 60\n", explained)
        self.assertIn("directory=/srv\n", explained)

    def test_not_found(self) -> None:
        """What is not there, or can't be run, says so; PATH is named."""
        self.assert_refused(
            self.try_to_launch(command=["fly"], startup_env="PATH=/opt:/bin"),
            409,
            "there is no fly in the folders of PATH (/opt:/bin)",
        )
        for command, said in (
            (["sleep 60"], "make each argument of command a string of its own"),
            (["/opt/fly"], "there is no /opt/fly in the container"),
            (["/bin/lost"], "is a symbolic link to /no/such/program, which is missing"),
            (["/opt/idle"], "/opt/idle is not executable"),
            (["/opt"], "/opt is not a regular file → name a script or program as command"),
        ):
            self.assert_refused(self.try_to_launch(command=command), 409, said)
        self.assert_only_failures_left()

    def test_no_folder(self) -> None:
        """A working folder that is not there, or that its owner may not enter, is named."""
        for workdir, said in (
            ("/none", "there is no folder /none in the container"),
            ("/opt/tell", "/opt/tell is not a folder that can be entered"),
            ("/srv/shut", "/srv/shut may not be entered by this startup_owner"),
        ):
            keys = {"command": ["ls"], "startup_owner": "worker", "workdir": workdir}
            self.assert_refused(self.try_to_launch(**keys), 409, said)
        self.assert_only_failures_left()


class KeptTests(ManagerCase):
    """Configs that are kept, and launches of them."""

    def test_newest(self) -> None:
        """A launch without a version takes the newest; a config in use is not removed."""
        for major, minor in (("1", "9"), ("1", "10"), ("0", "99")):
            self.upload(name="web", major=major, minor=minor)
        launched = self.ask("POST", "/instances", {"config": "web"}).json
        self.assertEqual((launched["major"], launched["minor"]), ("1", "10"))
        kept = self.ask("GET", "/configs").json["configs"]
        self.assertEqual([one["minor"] for one in kept], ["99", "9", "10"])
        self.assertEqual(kept[-1]["instances"], [launched["instance"]])
        refused = self.ask("DELETE", "/configs/web-1-10")
        self.assertEqual((refused.status, refused.json["instances"]), (409, kept[-1]["instances"]))
        self.ask("DELETE", "/destroyall")
        self.assertEqual(self.ask("DELETE", "/configs/web-1-10").status, 200)
        self.assertEqual(self.ask("GET", "/cfginfo").json["files"], ["web-0-99.cfg", "web-1-9.cfg"])

    def test_named(self) -> None:
        """A launch that is sent twice under a name makes one container, which has that name."""
        asked = {"config": self.config(command=["sleep", "60"]), "instance": "front.end"}
        self.assertEqual(self.ask("POST", "/instances", asked).status, 200)
        again = self.ask("POST", "/instances", asked)
        self.assertEqual((again.status, again.json["holder"]["instance"]), (409, "front.end"))
        self.assertEqual(self.running(), ["front.end"])

    def test_named_in_the_pool(self) -> None:
        """The same if containers are prepared: the name is that which was asked for."""
        config = self.config(command=["cat", "/etc/hostname"])
        for number in range(3):
            asked = {"config": config, "instance": f"job-{number}"}
            self.assertEqual(self.ask("POST", "/instances", asked).status, 200)
            self.assertEqual(self.output_of(f"job-{number}"), f"job-{number}\n")

    def test_removed(self) -> None:
        """What is to be removed at its end is, also if the manager is killed meanwhile."""
        text = "#!/bin/sh\ntrap 'exit 0' TERM; echo ready; while :; do sleep 0.1; done\n"
        asked = {"config": self.config(**self.job(text)), "instance": "job", "remove": True}
        self.assertEqual(self.ask("POST", "/instances", asked).status, 200)
        wait_until(lambda: self.log_of("job") == "ready\n", "it can be asked to end")
        self.manager.kill()
        self.manager.wait()
        self.start()
        connection = http.client.HTTPConnection("localhost", self.port, timeout=PATIENCE)
        self.addCleanup(connection.close)
        connection.request("GET", "/instances/job/wait")
        record = self.ask("GET", "/instances/job").json  # the manager has read the other one first
        os.kill(record["pid"], signal.SIGTERM)
        self.assertEqual(json.load(connection.getresponse())["exit"]["status"], 0)
        wait_until(lambda: not self.ask("GET", "/instances").json["instances"], "it is removed")
        self.assertFalse((self.state / "instances/job").exists())


class PreparedTests(KeptTests):
    """The same with warm inits."""

    pool = 2
