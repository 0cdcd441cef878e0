"""The host's resolv.conf: read once, and again when it has changed."""

import os
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from txcontain.host import resolv_conf
from txcontain.host.resolv_conf import LONGEST, ResolvConf


class Reading(SynchronousTestCase):
    """What a launch gets to know of the file."""

    def setUp(self) -> None:
        self.path = self.mktemp()
        self.file = ResolvConf(self.path)

    def put(self, content: Any) -> None:
        """Replace the file, as resolvconf(8) and systemd do."""
        with open(self.path + ".new", "wb") as file:
            file.write(content)
        os.rename(self.path + ".new", self.path)

    def test_changes(self) -> None:
        """A file that was replaced, removed or made again is noticed at the next launch."""
        self.assertEqual(self.file.text(), "")
        for content in (b"nameserver 1.1.1.1\n", b"nameserver 2.2.2.2\n"):
            self.put(content)
            self.assertEqual(self.file.text(), content.decode())
        os.unlink(self.path)
        self.assertEqual(self.file.text(), "")
        self.put(b"x")
        self.assertEqual(self.file.text(), "x")

    def test_read_once(self) -> None:
        """While it stays the same it is not read again."""
        self.put(b"nameserver 1.1.1.1\n")
        self.file.text()
        self.patch(resolv_conf, "_read", self.fail)
        self.assertEqual(self.file.text(), "nameserver 1.1.1.1\n")

    def test_bounds(self) -> None:
        """It is text of a bounded size, whatever bytes there are."""
        self.put(b"\xff\n" * LONGEST)
        text = self.file.text()
        self.assertLessEqual(len(text.encode(errors="strict")), 2 * LONGEST)
        self.assertTrue(text.startswith("\ufffd\n"))

    def test_no_regular_file(self) -> None:
        """A pipe or a folder is not read, without waiting."""
        os.mkfifo(self.path)
        self.assertEqual(self.file.text(), "")
        self.assertEqual(ResolvConf(os.path.dirname(os.path.abspath(self.path))).text(), "")
