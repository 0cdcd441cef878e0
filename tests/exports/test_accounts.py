"""Who a config's owner is in an image: as init.py finds it at a launch."""

import os
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from txcontain.container import init
from txcontain.errors import ConfigAtFault
from txcontain.exports.accounts import find_account
from txcontain.exports.subject import Account

PASSWD = "\n".join(
    [
        "root:x:0:0::/root:/bin/sh",
        "broken:x:1",
        "worker:x:1000:1001:A Worker:/home/worker:/bin/sh",
        "homeless:x:7:8:::",
        "bad:x:99999999999:1::/:",
        "1000:x:5:5::/five:",
    ]
)
GROUP = "root:x:0:\ncrew:x:2000:other,worker\n"
OWNERS = ["root", "worker", "worker:crew", "worker:12", "1000", "12", "homeless", "12:crew", "0"]


class AccountTests(SynchronousTestCase):
    """Names and numbers."""

    def test_known(self) -> None:
        """A name is looked up, and so is a number, which need not be there."""
        for owner, account in {
            "root": Account(0, 0, "root", "/root"),
            "worker": Account(1000, 1001, "worker", "/home/worker"),
            "worker:crew": Account(1000, 2000, "worker", "/home/worker"),
            "1000": Account(1000, 1001, "worker", "/home/worker"),
            "12": Account(12, 12, "12", "/"),
            "homeless": Account(7, 8, "homeless", "/"),
        }.items():
            self.assertEqual(find_account(owner, PASSWD, GROUP), account)
        self.assertEqual(find_account("root", "", ""), Account(0, 0, "root", "/"))

    def test_unknown(self) -> None:
        """A name that the image does not know is refused."""
        for owner, said in (("bad", "no user 'bad'"), ("root:none", "no group 'none'")):
            with self.assertRaisesRegex(ConfigAtFault, f"the image knows {said}"):
                find_account(owner, PASSWD, GROUP)

    def test_as_at_a_launch(self) -> None:
        """init.py, which shares no code with this, finds the same."""
        root = Path(self.mktemp())
        (root / "etc").mkdir(parents=True)
        (root / "etc/passwd").write_text(PASSWD)
        (root / "etc/group").write_text(GROUP)
        descriptor = os.open(root, os.O_PATH)
        self.addCleanup(os.close, descriptor)
        for owner in OWNERS:
            there = init.find_account(owner, descriptor)
            here = find_account(owner, PASSWD, GROUP)
            self.assertEqual(
                (here.uid, here.gid, here.name, here.home),
                (there.uid, there.gid, there.name, there.home),
            )

    @given(st.text(st.sampled_from("root:x01\n\0é٣-"), max_size=60))
    def test_hostile(self, text: str) -> None:
        """Whatever an image has as its files, root is someone, and nothing fails."""
        account: Any = find_account("root", text, text)
        self.assertIsInstance(account.uid, int)
        self.assertNotIn("\n", account.name + account.home)
