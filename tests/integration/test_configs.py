"""What configs say of the program that runs, and how they are kept and launched."""

from __future__ import annotations

from tests.integration.harness import ManagerCase
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
        self.assert_nothing_left()

    def test_no_folder(self) -> None:
        """A working folder that is not there, or that its owner may not enter, is named."""
        for workdir, said in (
            ("/none", "there is no folder /none in the container"),
            ("/opt/tell", "/opt/tell is not a folder that can be entered"),
            ("/srv/shut", "/srv/shut may not be entered by this startup_owner"),
        ):
            keys = {"command": ["ls"], "startup_owner": "worker", "workdir": workdir}
            self.assert_refused(self.try_to_launch(**keys), 409, said)
        self.assert_nothing_left()
