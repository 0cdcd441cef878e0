"""Lines for systemd's journal."""

import os
import socket

from hypothesis import given
from hypothesis import strategies as st

from tests.fakes import MachineTestCase
from tests.logs.test_logd import PATIENCE, ServerCase
from txcontain.logs import logd
from txcontain.logs.logd import LONGEST_MESSAGE, Journald


def fields(datagram: bytes) -> dict[str, bytes]:
    """The fields of a message, each of which is a line."""
    pairs = [line.partition(b"=") for line in datagram.removesuffix(b"\n").split(b"\n")]
    return {name.decode(): value for name, _, value in pairs}


class Journal:
    """A socket of ours in place of the journal's."""

    def __init__(self, test: MachineTestCase) -> None:
        self.path = os.path.relpath(os.path.join(test.folder, "journal"))  # at most 107 bytes
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)
        test.addCleanup(self.socket.close)
        self.socket.settimeout(0)

    def read(self) -> list[dict[str, bytes]]:
        """All messages that have come."""
        found = []
        while True:
            try:
                found.append(fields(self.socket.recv(1 << 20)))
            except BlockingIOError:
                return found


class JournaldTests(MachineTestCase):
    """What is sent."""

    def setUp(self) -> None:
        super().setUp()
        self.journal = Journal(self)
        self.journald = Journald(self.journal.path)
        self.addCleanup(self.journald.socket.close)

    def told(self) -> list[dict[str, bytes]]:
        """All messages, as the journal reads them and there is room for more."""
        found = self.journal.read()
        while self.journald.queue or self.journald.lost:
            self.journald.send()
            found += self.journal.read()
        return found

    def test_fields(self) -> None:
        """Each line is a message, with the instance's name and the stream's priority."""
        self.journald.add("web-1", "cafe", 0, b"one\n")
        self.journald.add("web-1", "cafe", 1, b"\xff two\x00\n")
        first, second = self.told()
        self.assertEqual(
            first,
            {
                "PRIORITY": b"6",
                "SYSLOG_IDENTIFIER": b"web-1",
                "CONTAINER_NAME": b"web-1",
                "CONTAINER_ID": b"cafe",
                "MESSAGE": b"one",
            },
        )
        self.assertEqual((second["PRIORITY"], second["MESSAGE"]), (b"3", b"\xff two\x00"))

    @given(st.lists(st.binary(max_size=40).filter(lambda piece: b"=" not in piece), max_size=10))
    def test_pieces(self, pieces: list[bytes]) -> None:
        """However the text was cut into pieces, its lines are the messages."""
        for piece in pieces:
            self.journald.add("web-1", "cafe", 0, piece)
        self.journald.end("web-1", "cafe")
        lines = b"".join(pieces).split(b"\n")
        told = [one["MESSAGE"] for one in self.told()]
        self.assertEqual(told, lines if lines[-1] else lines[:-1])
        self.assertEqual(self.journald.rests, {})

    def test_streams(self) -> None:
        """Unfinished lines of two streams are not mixed."""
        for stream, piece in ((0, b"a"), (1, b"b"), (0, b"A\n"), (1, b"B\n")):
            self.journald.add("web-1", "cafe", stream, piece)
        self.assertEqual([one["MESSAGE"] for one in self.told()], [b"aA", b"bB"])

    def test_long(self) -> None:
        """A long line is several messages, and no more is kept than one may have."""
        line = os.urandom(1).hex().encode() * 2 * LONGEST_MESSAGE
        for first in range(0, len(line), 1000):
            self.journald.add("web-1", "cafe", 0, line[first : first + 1000])
            kept = self.journald.rests.get(("cafe", 0), b"")
            self.assertLessEqual(len(kept), LONGEST_MESSAGE)
        self.journald.add("web-1", "cafe", 0, b"\n")
        told = self.told()
        self.assertEqual(b"".join(one["MESSAGE"] for one in told), line)
        partial = [one.get("CONTAINER_PARTIAL_MESSAGE") for one in told]
        self.assertEqual(partial, [b"true"] * (len(told) - 1) + [None])

    def test_forged(self) -> None:
        """Nothing that a container writes becomes a field."""
        self.journald.add("web-1", "cafe", 0, b"MESSAGE=x\nPRIORITY=0\n_UID=0\n")
        for one in self.told():
            self.assertEqual((one["PRIORITY"], "_UID" in one), (b"6", False))

    def test_full(self) -> None:
        """If the journal takes nothing, lines wait within a bound; what is lost is told."""
        self.patch(logd, "LARGEST_QUEUE", 10_000)
        for number in range(1000):
            self.journald.add("web-1", "cafe", 0, b"%d\n" % number)
        self.assertLess(self.journald.size, 11_000)
        told = self.told()
        last = told.pop()
        lines = [int(one["MESSAGE"]) for one in told]
        self.assertEqual(lines, [*range(len(lines))])
        words = f"{1000 - len(lines)} lines of containers are not in this journal"
        self.assertTrue(last["MESSAGE"].startswith(words.encode()), last)
        self.assertEqual((last["PRIORITY"], self.journald.size), (b"4", 0))

    def test_not_glued(self) -> None:
        """The beginning of a line whose end is lost is not taken for that of another."""
        self.patch(logd, "LARGEST_QUEUE", 1000)
        while self.journald.size <= 1000:
            self.journald.add("web-1", "cafe", 0, b"full\n" * 1000)
        for piece in (b"begin", b" lost\n"):
            self.journald.add("web-1", "cafe", 1, piece)
        self.told()
        self.journald.add("web-1", "cafe", 1, b"next\n")
        self.assertEqual(self.told()[0]["MESSAGE"], b"next")

    def test_fair(self) -> None:
        """Not all that waits is sent at once: other logs have their turn meanwhile."""
        os.unlink(self.journal.path)
        self.journald.add("web-1", "cafe", 0, b"line\n" * 1000)
        self.assertEqual(len(self.journald.queue), 1000 - logd.MOST_SENT)

    def test_not_there(self) -> None:
        """Without a journal nothing waits; when it is back, it is told how many lines it lacks."""
        os.unlink(self.journal.path)
        self.journal.socket.close()
        for _ in range(5):
            self.journald.add("web-1", "cafe", 0, b"a\n")
        self.assertEqual(len(self.journald.queue), 0)
        self.journal = Journal(self)
        self.journald.add("web-1", "cafe", 0, b"b\n")
        self.assertIn(b"b", [one["MESSAGE"] for one in self.told()])


class SlotTests(ServerCase):
    """The lines of a slot."""

    def setUp(self) -> None:
        super().setUp()
        self.journal = Journal(self)
        self.addCleanup(self.close_sockets)

    def close_sockets(self) -> None:
        """Close what the server sends by: collected later, it would free a descriptor by chance."""
        for one in (self.server.journald, self.server.before):
            if one is not None:
                one.socket.close()

    def lines(self, number: int) -> list[bytes]:
        """The next messages, as soon as so many have come."""
        self.journal.socket.settimeout(PATIENCE)
        return [fields(self.journal.socket.recv(1 << 20))["MESSAGE"] for _ in range(number)]

    def begin_log(self, *more: str) -> None:
        """A manager has the log of slot a read."""
        self.tell("sync a b", *more, "open a", "name a web 1000000")
        self.assert_said("opened a")

    def test_both(self) -> None:
        """The lines are in the journal, and in the log as ever; the last one without its end."""
        self.begin_log(f"journal {self.journal.path}")
        self.write(b"one\ntwo\nthr")
        self.assertEqual(self.lines(2), [b"one", b"two"])
        self.write(b"ee")
        self.tell("close a")
        self.assert_said("closed a")
        self.assertEqual(self.lines(1), [b"three"])
        self.assert_log(b"one\ntwo\nthree")

    def test_next_manager(self) -> None:
        """The next manager decides anew; what was unfinished before is not lost."""
        self.begin_log(f"journal {self.journal.path}")
        self.write(b"one\ntw")
        self.assertEqual(self.lines(1), [b"one"])
        self.manager = self.connect()
        self.begin_log(f"journal {self.journal.path}")
        self.write(b"o\n")
        self.assertEqual(self.lines(1), [b"two"])
        self.manager = self.connect()
        self.begin_log()
        self.write(b"three\n")
        self.tell("drain a")
        self.assert_said("drained a")
        self.journal.socket.settimeout(0)
        self.assertEqual(self.journal.read(), [])

    def test_full(self) -> None:
        """A journal that takes nothing does not keep the log from anything."""
        self.begin_log(f"journal {self.journal.path}")
        text = b"".join(b"%d\n" % number for number in range(2000))
        self.write(text)
        self.tell("drain a")
        self.assert_said("drained a")
        self.assert_log(text)
        self.assertEqual(self.lines(2000), text.split())
