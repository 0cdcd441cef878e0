"""Packing and unpacking streams, with a fake tar at the other end of real pipes."""

import os
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.python.failure import Failure

from tests.fakes import MachineTestCase, make_pool, remove
from txcontain.container.plan import VolumePlace
from txcontain.errors import CalledOff, ConfigAtFault, MachineAtFault
from txcontain.images import packing
from txcontain.images.packing import LEAST, LEAST_WITHIN, Pace, Packer
from txcontain.images.packing_plan import make_packing_plan
from txcontain.images.programs import Program
from txcontain.images.unpack import CHECK_EVERY, Unpacker


class Client:
    """Takes an export, or sends an import."""

    def __init__(self, *parts: bytes) -> None:
        self.parts, self.taken = parts, b""
        self.delivered: Deferred[None] = Deferred()
        self.producer: Any = None
        self.start: Deferred[bytes] = Deferred()

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        self.producer = producer

    def unregisterProducer(self) -> None:
        self.producer = None

    def write(self, data: bytes) -> None:
        self.taken += data

    def peek(self, length: int) -> Deferred[bytes]:
        return self.start

    def deliver(self, consumer: Any) -> Deferred[None]:
        for part in self.parts:
            consumer.write(part)
        return self.delivered


class PackingTests(MachineTestCase):
    """A tar(1) that does what the test says."""

    def setUp(self) -> None:
        super().setUp()
        self.reactor.works = False
        for name in ("addReader", "removeReader", "addWriter", "removeWriter"):
            setattr(self.reactor, name, lambda _: None)
        pool = make_pool(self.reactor, self.folder, size=0)
        pool.start()
        self.packer = Packer(Unpacker(pool, maybeDeferred, remove), os.path.join(self.folder, "p"))
        self.patch(packing, "find", lambda name: Program(f"/usr/bin/{name}"))
        self.client = Client(b"tarball")
        self.volume = os.path.join(self.folder, "volume")
        os.mkdir(self.volume)
        self.place = VolumePlace(self.volume, "1.json")

    def pack(self, still: bool = False) -> Deferred[Any]:
        """Begin to export."""
        packed = self.start(self.packer.pack("exporting", self.place, self.client, still))
        self.init.carry_out()
        self.reactor.advance(0)
        return packed

    def unpack(self) -> Deferred[Any]:
        """Begin to import."""
        unpacked = self.start(self.packer.unpack("importing", self.client, self.volume))
        self.client.start.callback(b"tarball.")
        self.reactor.advance(0)
        self.assertNoResult(unpacked)
        self.init.carry_out()
        self.reactor.advance(0)
        return unpacked

    def end(self, words: str = "Done", complaint: str = "") -> None:
        """Tar ends."""
        self.init.child.errReceived(complaint.encode())
        self.init.end(words)
        self.reactor.advance(0)

    def close(self) -> None:
        """Tar has closed its end of the pipe."""
        self.client.producer.connectionLost(Failure(ConnectionDone()))
        self.reactor.advance(0)

    def test_pack(self) -> None:
        """Tar writes to a pipe, of which the client gets everything; nothing is left."""
        packed = self.pack()
        (beside,) = os.listdir(self.packer.folder)
        beside = os.path.join(self.packer.folder, beside)
        pipe, scratch = os.path.join(beside, "pipe"), os.path.join(beside, "scratch")
        plan = make_packing_plan(self.place, scratch, pipe, Program("/usr/bin/tar"))
        self.assertEqual(self.init.plan, plan)
        with open(pipe, "wb", buffering=0) as tar:
            tar.write(b"tarball")
            self.client.producer.doRead()
        self.close()
        self.assertNoResult(packed)
        self.end()
        self.successResultOf(packed)
        self.assertEqual((self.client.taken, os.listdir(self.packer.folder)), (b"tarball", []))

    def test_status(self) -> None:
        """What was changed meanwhile is no failure, unless nothing can have changed."""
        for status, still, fails in ((1, False, False), (1, True, True), (2, False, True)):
            packed = self.pack(still)
            self.close()
            self.end(f"Done({status})", "tar: it is bad\n")
            if fails:
                error = self.failureResultOf(packed, MachineAtFault).value
                self.assertEqual(str(error), "exporting → tar: tar: it is bad")
            else:
                self.successResultOf(packed)

    def test_stalled(self) -> None:
        """A client that takes nothing for a while is given up, and tar ends."""
        packed = self.pack()
        self.reactor.advance(LEAST_WITHIN)
        self.close()
        self.reactor.advance(0)
        error = self.failureResultOf(packed, CalledOff).value
        self.assertEqual(str(error), "exporting → the client took less than 1 MiB in 60 seconds")

    def test_pace(self) -> None:
        """A client that goes on is let go on; one that takes a byte now and then is not."""
        slow: list[bool] = []
        pace = Pace(self.reactor, lambda: slow.append(True))
        for _ in range(10):
            self.reactor.advance(LEAST_WITHIN / 2)
            pace.took(LEAST)
        self.assertEqual(slow, [])
        for _ in range(4):
            self.reactor.advance(LEAST_WITHIN / 4)
            pace.took(1)
        self.assertEqual((slow, pace.end()), ([True], False))

    def test_gone(self) -> None:
        """If the client hangs up, tar ends."""
        packed = self.pack()
        self.client.producer.stopProducing()
        self.reactor.advance(0)
        self.failureResultOf(packed, MachineAtFault)
        self.assertEqual((self.kernel.living, os.listdir(self.packer.folder)), ({}, []))

    def test_no_plan(self) -> None:
        """If the jail can't be made, the error says which step failed."""
        packed = self.start(self.packer.pack("exporting", self.place, self.client, False))
        self.init.fail(call="unshare", errno=1)
        self.reactor.advance(0)
        error = self.failureResultOf(packed, MachineAtFault).value
        self.assertEqual(error.chain[:2], ("exporting", "unshare(2)"))
        self.assertEqual(os.listdir(self.packer.folder), [])

    def make_hidden(self) -> None:
        """The init makes the folder for tar's own files."""
        os.mkdir(self.volume + dict(self.init.plan)["mount"]["target"])

    def test_unpack(self) -> None:
        """Tar reads what the client sends, and its own files are not in the folder."""
        unpacked = self.unpack()
        self.make_hidden()
        self.client.delivered.callback(None)
        self.assertIn("--file=-", self.init.plan[-1][1]["arguments"])
        self.end()
        self.successResultOf(unpacked)
        self.assertEqual((os.listdir(self.volume), os.listdir(self.packer.folder)), ([], []))

    def test_long(self) -> None:
        """One that takes long is looked at meanwhile, and goes on."""
        unpacked = self.unpack()
        self.make_hidden()
        self.reactor.pump([CHECK_EVERY] * 3)
        self.assertNoResult(unpacked)
        self.client.delivered.callback(None)
        self.end()
        self.successResultOf(unpacked)

    def test_no_tarball(self) -> None:
        """What tar complains of is refused."""
        unpacked = self.unpack()
        self.end("Done(2)", "tar: This does not look like a tar archive\n")
        error = self.failureResultOf(unpacked, ConfigAtFault).value
        self.assertIn("This does not look like a tar archive", str(error))
        unpacked = self.unpack_again()
        self.end("Done(2)")
        self.failureResultOf(unpacked, ConfigAtFault)

    def unpack_again(self) -> Deferred[Any]:
        """Begin another import."""
        self.client = Client(b"tarball")
        return self.unpack()

    def test_moved(self) -> None:
        """What came for a volume with a bound is moved to its file system, and nowhere else."""
        os.mkdir(os.path.join(self.volume, "data"))
        place = VolumePlace(self.volume, "1.json", 1 << 24)
        moved = self.start(self.packer.move_to_disk("importing", place))
        self.init.carry_out()
        ops = [op for op, _ in self.init.plan]
        self.assertLess(ops.index("disk"), ops.index("volume"))
        self.end()
        self.successResultOf(moved)
        self.assertEqual(os.listdir(self.volume), [])

    def test_client_hangs_up(self) -> None:
        """If the client hangs up, tar ends, and that is why."""
        unpacked = self.unpack()
        self.client.delivered.errback(ConnectionLost())
        self.reactor.advance(0)
        error = self.failureResultOf(unpacked, CalledOff).value
        self.assertEqual(str(error), "importing → the client hung up")
        self.client = Client()
        unpacked = self.start(self.packer.unpack("importing", self.client, self.volume))
        self.client.start.errback(ConnectionLost())
        self.failureResultOf(unpacked, CalledOff)

    def test_killed(self) -> None:
        """If tar is killed, the machine is at fault."""
        unpacked = self.unpack()
        self.end("Killed")
        self.failureResultOf(unpacked, MachineAtFault)
