"""The options of a swarm."""

from pathlib import Path
from typing import Any

from twisted.internet.testing import MemoryReactorClock
from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase

from tests.certificates import Authority
from tests.fakes import ManagerTestCase, make_folder
from txcontain.engine.this_host import ThisHost
from txcontain.swarm import reaching
from txcontain.swarm.swarm import Swarm
from txcontain.swarm.wiring import Watching
from txcontain.tap import Options, make_engine

NEEDED = "--engine swarm --docker unix:/run/docker.sock --registry 127.0.0.1:5000"


def parse(words: str) -> Options:
    """The options of a command line."""
    options = Options()
    options.parseOptions(words.split())
    return options


class EngineTests(ManagerTestCase):
    """Which engine is made."""

    def test_kinds(self) -> None:
        """Without an option, this host is the engine; with one, a swarm is."""
        engine, needed = make_engine(parse(""), self.manager)
        self.assertIsInstance(engine, ThisHost)
        self.assertEqual(needed, [])
        engine, (needed_one,) = make_engine(parse(NEEDED), self.manager)
        self.assertIsInstance(needed_one, Watching)
        assert isinstance(engine, Swarm)
        (manager,) = engine.docker.managers
        self.assertEqual(manager.url, "http://localhost")
        self.assertEqual(engine.host, self.manager)


class CertificateTests(SynchronousTestCase):
    """The folder of --docker-certificates."""

    def setUp(self) -> None:
        self.folder = Path(make_folder(self))

    def write(self) -> None:
        """What Docker's clients have."""
        authority = Authority(self.folder)
        certificate, key = authority.issue("client")
        for name, file in (
            ("ca.pem", authority.certificate),
            ("cert.pem", certificate),
            ("key.pem", key),
        ):
            (self.folder / name).write_bytes(Path(file).read_bytes())

    def refused(self) -> str:
        """Why it is refused."""
        error = self.assertRaises(ValueError, reaching.read_certificates, str(self.folder))
        return str(error)

    def test_refused(self) -> None:
        """What lacks or can't be read is named."""
        self.assertIn("ca.pem can't be read: No such file or directory", self.refused())
        for name in ("ca.pem", "cert.pem", "key.pem"):
            (self.folder / name).write_text("no PEM")
        self.assertIn("holds no ca.pem, cert.pem and key.pem in PEM form", self.refused())

    def test_options(self) -> None:
        """https needs certificates, and with them several managers are taken."""
        self.write()
        address = "https://a.example:2376,https://b.example:2376"
        words = f"--engine swarm --registry r:5000 --docker {address}"
        self.assertRaises(UsageError, parse, words)
        options = parse(f"{words} --docker-certificates {self.folder}")
        self.assertEqual(options["docker"], address.split(","))

    def test_without_a_swarm(self) -> None:
        """Without a swarm there is no one to show a certificate to."""
        self.write()
        error = self.assertRaises(UsageError, parse, f"--docker-certificates {self.folder}")
        self.assertEqual(str(error), "--docker-certificates needs --engine swarm")

    def test_tls(self) -> None:
        """A manager is connected to at its port, with these certificates."""
        self.write()
        reactor: Any = MemoryReactorClock()
        certificates = reaching.read_certificates(str(self.folder))
        endpoint = reaching.endpoint_of(reactor, "https://192.0.2.1:2376", certificates)
        client = reaching.client_of(reactor, endpoint)
        asked = client.get("https://192.0.2.1:2376/version")
        self.assertNoResult(asked)
        self.assertEqual([port for _, port, *_ in reactor.tcpClients], [2376])
