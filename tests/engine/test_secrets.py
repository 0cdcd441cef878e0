"""Secrets on a fake machine: kept, given to instances, and told to no one."""

import os
import stat
from typing import Any

from tests.engine.test_recovery import RestoreTestCase
from tests.support import document
from txcontain.engine import inspection, life, secrets
from txcontain.engine.configs import upload
from txcontain.errors import (
    ConfigAtFault,
    InvalidData,
    MachineAtFault,
    NoSuchSecret,
    SecretInUse,
    TooLarge,
)

CONTENT = b"a-secret-like-no-other\0\n"


class SecretTests(RestoreTestCase):
    """What a manager can be asked about secrets."""

    def put(self, name: str = "db", content: bytes = CONTENT) -> None:
        """Keep a secret."""
        self.now(secrets.put(self.manager, name, content))

    def path(self, name: str) -> str:
        """The file of a secret."""
        return os.path.join(self.folder, "secrets", name)

    def test_put(self) -> None:
        """A secret is kept byte for byte, only for root, and can be set again."""
        self.put(content=b"old")
        self.put()
        self.put("a.b")
        with open(self.path("db"), "rb") as file:
            self.assertEqual(file.read(), CONTENT)
        self.assertEqual(stat.S_IMODE(os.stat(self.path("db")).st_mode), 0o600)
        self.assertEqual(self.manager.vault.names(), ["a.b", "db"])
        self.assertEqual(self.events()[-1], "secret: a.b was set")

    def test_refused(self) -> None:
        """A bad name, and a secret that is empty or too long, are refused; it is not quoted."""
        for name, content, kind in (
            ("../db", CONTENT, InvalidData),
            (".db", CONTENT, InvalidData),
            ("a" * 64, CONTENT, InvalidData),
            ("db", b"", InvalidData),
            ("db", b"secret" * 11_000, TooLarge),
        ):
            error = self.refused(secrets.put(self.manager, name, content), kind)
            self.assertNotIn("secretsecret", str(error))
        self.assertEqual(self.manager.vault.names(), [])

    def test_disk_full(self) -> None:
        """If the disk refuses, the machine is blamed, and nothing is left of the secret."""
        os.rmdir(os.path.join(self.folder, "secrets"))
        error = self.refused(secrets.put(self.manager, "db", CONTENT), MachineAtFault)
        self.assertEqual(error.chain[0], "keeping the secret db")
        error = self.refused(secrets.remove(self.manager, "db"), NoSuchSecret)

    def test_can_not_be_removed(self) -> None:
        """If the disk refuses to remove it, the machine is blamed."""
        os.mkdir(self.path("db"))
        error = self.refused(secrets.remove(self.manager, "db"), MachineAtFault)
        self.assertEqual(error.chain[0], "removing the secret db")

    def test_in_use(self) -> None:
        """It is removed once no instance has it."""
        self.put()
        instance = self.launch(secrets=["db /run/db"])
        self.assertEqual(secrets.users(self.manager), {"db": [instance.name]})
        error = self.refused(secrets.remove(self.manager, "db"), SecretInUse)
        self.assertEqual(error.details, {"instances": [instance.name]})
        self.init.end()
        self.now(secrets.remove(self.manager, "db"))
        for name in ("db", "..", "../lock", ""):
            self.refused(secrets.remove(self.manager, name), NoSuchSecret)

    def test_stopped(self) -> None:
        """An instance that is stopped has it still: it will take it when it is started."""
        self.put()
        instance = self.launch(secrets=["db /run/db"])
        stopped = self.start(life.stop(self.manager, instance))
        self.reactor.pump([0.1] * 30)
        self.successResultOf(stopped)
        self.assertEqual(instance.state, "stopped")
        self.assertEqual(secrets.users(self.manager), {"db": [instance.name]})

    def test_missing(self) -> None:
        """A launch that takes a secret or a file that is not there is refused, and says so."""
        for changes, said in (
            ({"secrets": ["db /run/db"]}, "there is no secret db"),
            (
                {"files": [{"path": "/x", "from": "x.conf"}]},
                "there is no file x.conf in mountables/",
            ),
        ):
            change: Any = changes
            spec = self.now(upload(self.manager, document(minor=str(len(said)), **change)))
            launched = self.manager.launch(spec.name, spec.major, spec.minor)
            self.assertIn(said, str(self.refused(launched, ConfigAtFault)))
        self.assertNothingLeft()

    def test_shown_to_no_one(self) -> None:
        """The plan, the record and the journal have the secret's name, and not what is in it."""
        self.put()
        instance = self.launch(secrets=["db /run/db"])
        shown = f"{instance.plan}{inspection.inspect(self.manager, instance)}{self.events()}"
        self.assertIn("/secrets/db", shown)
        self.assertNotIn("no-other", shown)
        for folder, _, files in os.walk(self.folder):
            paths = [os.path.join(folder, name) for name in files]
            for path in filter(os.path.isfile, paths):
                if not folder.endswith("/secrets"):
                    with open(path, "rb") as file:
                        self.assertNotIn(b"no-other", file.read(), path)

    def test_cut_short(self) -> None:
        """What an interrupted write has left of a secret is removed by the next manager."""
        with open(self.path(".db.0.tmp"), "wb") as file:
            file.write(CONTENT)
        self.assertIn("removed .db.0.tmp, a write cut short", self.next_manager())
        self.assertEqual(os.listdir(os.path.dirname(self.path("db"))), [])
