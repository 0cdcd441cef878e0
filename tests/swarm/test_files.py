"""Files of instances of a swarm, by a Docker in memory."""

import base64
import json
from typing import Any, cast

from attrs import evolve
from treq.client import HTTPClient
from treq.testing import RequestTraversalAgent
from twisted.internet.defer import Deferred

from tests.swarm.test_archives import member, packed, unpacked
from tests.swarm.test_swarm import SwarmCase
from txcontain import errors
from txcontain.api.bodies import Body as Sent
from txcontain.runtime.sessions import MOST_EACH
from txcontain.swarm.files import SILENT_FOR

ARCHIVE = "/containers/c1/archive"
DIR, LINK, SETUID, SOCKET = 1 << 31, 1 << 27, 1 << 23, 1 << 24


def stat_of(mode: int, **more: Any) -> str:
    """What Docker tells of a file."""
    told = {"name": "../../x", "size": 7, "mode": mode, "mtime": "2026-01-01T00:00:01Z", **more}
    return base64.b64encode(json.dumps(told).encode()).decode()


class FilesCase(SwarmCase):
    """A test of an instance that runs."""

    def setUp(self) -> None:
        super().setUp()
        self.keep()
        self.name = self.launched()
        self.fake.files = {"/data": packed((member("data"), b"x")), "/data/.": b"-"}
        self.fake.stats = {"/data": stat_of(0o640), "/data/.": stat_of(DIR | 0o755)}


class LookTests(FilesCase):
    """What is at a path."""

    def test_kinds(self) -> None:
        """Kind and mode are those of the file; its name is that which was asked for."""
        for mode, kind, bits in (
            (0o640, "file", 0o640),
            (DIR | 0o755, "folder", 0o755),
            (LINK | 0o777, "link", 0o777),
            (SETUID | 0o755, "file", 0o4755),
            (SOCKET | 0o600, "other", 0o600),
        ):
            self.fake.stats["/data"] = stat_of(mode)
            told = self.now(self.swarm.look_at_file(self.name, "/data"))
            wanted = {"name": "data", "kind": kind, "mode": bits, "size": 7, "changed": 1767225601}
            self.assertEqual(told, wanted)

    def test_garbage(self) -> None:
        """Whatever Docker tells instead, it is an error of its own."""
        for said in ("", "%", "bnVsbA==", stat_of(0, mtime="x"), stat_of(0, size=None)):
            self.fake.stats["/data"] = said
            error = self.refused(self.swarm.look_at_file(self.name, "/data"), errors.MachineAtFault)
            self.assertIn("does not tell what is there", str(error))

    def test_nothing(self) -> None:
        """Nothing at a path, a file in its place, and a container that has gone are told apart."""
        look = self.swarm.look_at_file
        self.assertIn("/none", str(self.refused(look(self.name, "/none"), errors.NoSuchPath)))
        self.fake.refusals[f"HEAD {ARCHIVE}"] = 500, ""
        self.fake.refusals[f"GET {ARCHIVE}"] = 500, "lstat /x: not a directory"
        error = self.refused(look(self.name, "/data/x"), errors.NoSuchPath)
        self.assertIn("is no folder", str(error))
        self.fake.refusals[f"GET {ARCHIVE}"] = 500, "broken"
        self.assertIn("broken", str(self.refused(look(self.name, "/x"), errors.MachineAtFault)))
        self.fake.refusals = {f"{m} {ARCHIVE}": (404, "No such container") for m in ("GET", "HEAD")}
        self.fake.refusals["GET /containers/c1/json"] = 404, "No such container"
        self.refused(look(self.name, "/data"), errors.NotRunning)

    def test_unseen(self) -> None:
        """What Docker would have in place of what is in memory is refused, however it is called."""
        for path in ("/tmp", "/run/x", "//tmp/a", "/data/../tmp", "/./proc/1", "/dev/shm/x"):
            for begun in (
                self.swarm.look_at_file(self.name, path),
                self.swarm.read_files(self.name, path),
                self.swarm.write_files(self.name, path, owners=False),
            ):
                error = self.refused(begun, errors.CannotCopy)
                self.assertIn("txcontain exec", str(error))
        for path in ("data", "", "/\0", "/" + "x" * 5000):
            self.refused(self.swarm.look_at_file(self.name, path), errors.InvalidData)


class ReadTests(FilesCase):
    """Streams out."""

    def read(self) -> Any:
        """One that has begun."""
        return self.now(self.swarm.read_files(self.name, "/data"))

    def test_whole(self) -> None:
        """What Docker sends comes, byte for byte; it is over then."""
        reading, came = self.read(), list[bytes]()
        self.assertEqual(len(self.swarm.copies.running), 1)
        self.now(reading.run(came.append))
        self.assertEqual(b"".join(came), self.fake.files["/data"])
        self.assertEqual(self.swarm.copies.running, [])
        reading.end("too late")

    def test_ended(self) -> None:
        """One that is cut short before it has begun to come is over, too."""
        reading = self.read()
        reading.end("the client hung up")
        self.assertEqual(self.swarm.copies.running, [])
        error = self.refused(reading.run(bytes), errors.CalledOff)
        self.assertIn("the client hung up", str(error))

    def silent(self) -> tuple[Any, Any]:
        """One whose Docker has sent nothing yet, and its body."""
        reading = self.read()
        bodies: list[Any] = []

        class Response:
            """An answer that has no end."""

            def deliverBody(self, body: Any) -> None:
                """Begin it."""
                body.transport = Line()
                bodies.append(body)

        reading.response = Response()
        return reading, bodies

    def test_silent(self) -> None:
        """A Docker that sends nothing for long is given up, unless it is held up by the client."""
        reading, bodies = self.silent()
        came: list[bytes] = []
        running = self.start(reading.run(came.append))
        self.reactor.advance(SILENT_FOR - 1)
        bodies[0].dataReceived(b"a")
        reading.pauseProducing()
        self.assertEqual(bodies[0].transport.did, ["paused"])
        self.reactor.advance(10 * SILENT_FOR)
        self.assertNoResult(running)
        reading.resumeProducing()
        self.reactor.advance(SILENT_FOR + 1)
        error = self.failureResultOf(running, errors.CalledOff).value
        self.assertIn("has sent nothing for 60 seconds", str(error))
        self.assertEqual(bodies[0].transport.did[1:], ["resumed", "lost"])
        self.assertEqual((came, self.swarm.copies.running), ([b"a"], []))

    def test_hung_up(self) -> None:
        """If the client hangs up, Docker's connection is cut; so it is if the manager ends."""
        for end in (
            lambda one: one.stopProducing(),
            lambda one: self.now(self.swarm.copies.stop()),
        ):
            reading, bodies = self.silent()
            running = self.start(reading.run(bytes))
            end(reading)
            self.failureResultOf(running, errors.CalledOff)
            self.assertEqual(bodies[0].transport.did, ["lost"])

    def test_many(self) -> None:
        """Only so many are under way at the same time in an instance."""
        for _ in range(MOST_EACH):
            self.read()
        self.refused(self.swarm.read_files(self.name, "/data"), errors.TooMany)
        self.swarm.copies.running[0].end("")
        self.swarm.copies.running[0].end("x")
        self.read()


class Line:
    """A connection."""

    def __init__(self) -> None:
        self.did: list[str] = []

    def pauseProducing(self) -> None:
        """Pause it."""
        self.did.append("paused")

    def resumeProducing(self) -> None:
        """Resume it."""
        self.did.append("resumed")

    def loseConnection(self) -> None:
        """Close it."""
        self.did.append("lost")


class WriteTests(FilesCase):
    """Streams in."""

    def setUp(self) -> None:
        super().setUp()
        self.now(self.swarm.records(None))
        self.agent = RequestTraversalAgent(self.fake)
        self.swarm.docker.managers[0].http = HTTPClient(cast(Any, self.agent))

    def flush(self) -> None:
        """Have all requests be answered."""
        for _ in range(20):
            self.agent.flush()

    def begin(self) -> Any:
        """Begin to write."""
        begun = self.start(self.swarm.write_files(self.name, "/data", owners=False))
        self.flush()
        return begun

    def write(self) -> Any:
        """One that has begun."""
        return self.successResultOf(self.begin())

    def send(self, writing: Any, stream: bytes) -> Any:
        """Have a client send this, and nothing more; what becomes of it."""
        sent = Sent()
        sent.received(stream)
        sent.all_received()
        sent.deliver(writing.input).addCallback(lambda _: writing.close_input())
        running = self.start(writing.run(bytes))
        self.flush()
        return running

    def test_whole(self) -> None:
        """What comes goes to Docker, without devices, and root's."""
        writing = self.write()
        device = member("disk", b"4", devmajor=8)
        running = self.send(writing, packed((member("a"), b"1"), (device, b"")))
        self.successResultOf(running)
        found = unpacked(self.fake.written[0])
        self.assertEqual({name: one[1][:2] for name, one in found.items()}, {"a": (0, 0)})
        self.assertEqual(writing.left_out, "left out: 1 device nodes")
        self.assertEqual(self.swarm.copies.running, [])

    def test_in_pieces(self) -> None:
        """However it is cut, it comes whole: also if a piece is held back, or left out."""
        device, much = member("x" * 300, b"3"), member("y" * 300)
        stream = packed((device, b""), (much, b"1" * 3000))
        writing = self.write()
        running = self.start(writing.run(bytes))
        writing.registerProducer(Line(), True)
        for at in range(0, len(stream), 100):
            writing.write(stream[at : at + 100])
            self.flush()
        writing.unregisterProducer()
        writing.close_input()
        self.flush()
        self.successResultOf(running)
        self.assertEqual([*unpacked(self.fake.written[0])], ["y" * 300])

    def test_refused(self) -> None:
        """What Docker says of a refusal is told, with what to do."""
        for status, said, kind, words in (
            (403, "container rootfs is marked read-only", errors.CannotCopy, "the mount is READ"),
            (400, "extraction point is not a directory", errors.NoSuchPath, "is no folder"),
            (500, "no space left on device", errors.CannotCopy, "no space left"),
        ):
            self.fake.refusals[f"PUT {ARCHIVE}"] = status, said
            running = self.send(self.write(), packed((member("a"), b"1")))
            self.assertIn(words, str(self.failureResultOf(running, kind).value))
            self.assertEqual(self.swarm.copies.running, [])

    def test_no_folder(self) -> None:
        """What is no folder is refused before anything is sent."""
        self.fake.stats["/data/."] = stat_of(0o644)
        self.failureResultOf(self.begin(), errors.NoSuchPath)
        self.assertEqual((self.fake.written, self.swarm.copies.running), ([], []))

    def test_no_tar(self) -> None:
        """What is no tar stream is cut off, and Docker sees no end of it."""
        running = self.send(self.write(), b"x" * 1024)
        error = self.failureResultOf(running, errors.InvalidData).value
        self.assertIn("is no tar stream", str(error))
        self.assertEqual((self.fake.written, self.swarm.copies.running), ([], []))

    def test_cut_short(self) -> None:
        """A client that hangs up ends it, and Docker sees no end of it."""
        writing = self.write()
        running = self.start(writing.run(bytes))
        writing.registerProducer(Line(), True)
        writing.write(packed((member("a"), b"1" * 9000))[:700])
        writing.end("the client hung up")
        self.failureResultOf(running, errors.CalledOff)
        self.flush()
        self.assertEqual(self.fake.written, [])

    def test_flow(self) -> None:
        """While Docker takes nothing, the client is held up; for long, and it is given up."""
        writing, line = self.write(), Line()
        running = self.start(writing.run(bytes))
        writing.registerProducer(line, True)
        writing.pauseProducing()
        self.reactor.advance(SILENT_FOR - 1)
        writing.resumeProducing()
        self.reactor.advance(10 * SILENT_FOR)  # it is the client that sends nothing
        self.assertNoResult(running)
        writing.pauseProducing()
        self.reactor.advance(SILENT_FOR + 1)
        error = self.failureResultOf(running, errors.CalledOff).value
        self.assertIn("has taken nothing for 60 seconds", str(error))
        self.assertEqual(line.did, ["paused", "resumed", "paused"])

    def test_no_answer(self) -> None:
        """A Docker that never answers to the end of a stream is given up."""
        self.fake.is_silent, writing = False, self.write()
        self.fake.loses = {f"PUT {ARCHIVE}"}
        running = self.send(writing, packed((member("a"), b"1")))
        self.assertNoResult(running)
        self.reactor.advance(SILENT_FOR + 1)
        self.failureResultOf(running, errors.CalledOff)

    def test_never_connected(self) -> None:
        """A Docker that can't be connected to is told so, and nothing is left."""

        class Deaf:
            """Takes no request."""

            def request(self, *_: Any, **__: Any) -> Deferred[Any]:
                """Fail."""
                raise OSError("it is not there")

        asked = self.start(self.swarm._place(self.name, "x"))
        self.flush()
        place = self.successResultOf(asked)
        deaf = evolve(place, manager=evolve(place.manager, http=Deaf(), version=(1, 41)))
        begun = self.start(self.swarm.copies.write(deaf, "/data", owners=False))
        self.flush()
        running = self.start(self.successResultOf(begun).run(bytes))
        self.failureResultOf(running, errors.MachineAtFault)
        self.assertEqual(self.swarm.copies.running, [])
