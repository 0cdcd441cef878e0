"""The log process: moves what containers write from their pipes to files, within bounds.

Run by its path as ``python3 -I -S -B logd.py RUN INSTANCES CGROUP_FILE``. It uses only the standard
library. One log process serves all containers of a state folder. It outlives the manager that
started it; the next manager finds it by its socket. It ends when no manager is connected and no
pipe is left.

Each container has two FIFOs in its slot (the folder of its monitor). The monitor holds both open
for reading and writing, so that no writer is killed (SIGPIPE), and nothing in them is lost while
there is no log process. If the container has a terminal (pty(7)), its master is held here, and what
comes from it is moved into the FIFO of stdout. A log is a folder of segments, each of two files:
NUMBER.log has the bytes of both streams as they came; NUMBER.index has a RECORD for each piece,
which says where it begins. The record is written first. Then the piece is moved by splice(2), which
takes out of the pipe only what it puts into the file. So a kill at any moment neither loses nor
repeats anything.

It is two processes, and each replaces the other at once if that is killed. The server does all
this. The holder only holds the same descriptors, so that the server's death does not lose what is
in the pipes of a container that has ended, and has no monitor any more.

The manager sends lines to RUN/logd.sock, and gets lines::

    sync TOKEN..                   these are all slots; close all others
    open TOKEN                     open a slot's FIFOs            -> opened TOKEN | failed TOKEN WHY
    name TOKEN INSTANCE BYTES      read them, into this instance's log of at most so many bytes
    drain TOKEN                    move what is in them now       -> drained TOKEN
    close TOKEN                    the same, then close them      -> closed TOKEN
    terminal TOKEN                 hold the slot's terminal, which comes along
    lend TOKEN                     give it back, if there is one  -> lent TOKEN NUMBER
    rename TOKEN INSTANCE          rename its instance's folder   -> renamed TOKEN
    journal SOCKET                 after sync: send all lines there, too
    follow INSTANCE SEGMENT BYTE   say once when the log has grown beyond this -> grew INSTANCE
    keep KEY                       keep the socket that comes along -> kept KEY | refused KEY WHY
    unkeep KEY                     close it                       -> unkept KEY
    retain KEY..                   these are all that it is to keep; close all others
    give FROM                      all that are kept, from this number on: some with each answer,
                                   and their sockets              -> given FROM KEY..
    at any time                                                   -> trouble INSTANCE WHY

A socket that is kept (docs/decisions/0015-kept-sockets.md) listens on, and its connections wait,
while there is no manager. It is never accepted from, nor read, in this process.

If the disk is full, nothing is thrown away: what is in a pipe stays there and is tried again, and
a program that writes to a full pipe waits.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import resource
import select
import signal
import socket
import struct
import sys
import time
from collections import deque

TYPE_CHECKING = False  # importing typing would cost memory
if TYPE_CHECKING:
    from collections.abc import Callable

LOG = "log"  # the folder of the segments, in the folder of an instance
STREAMS = ("stdout", "stderr")
# Of a piece: twice its time in nanoseconds since 1970, plus 1 for stderr; where it begins.
RECORD = struct.Struct("<QQ")
LONGEST_PIECE = 1 << 16  # bytes moved for one container before others get their turn
LARGEST_PIPE = 1 << 20  # bytes: a container can enlarge its pipes to this (pipe(7))
MOST_PIECES = 32  # of a terminal, which holds 64 KB, and gives 4 KB at a time
SAME_TIME = 100_000  # nanoseconds within which one record is enough for a stream
MOST_SEGMENTS = 8  # of a log: the half-used last blocks of 16 files are at most 64 KB
LEAST_SEGMENT = 1 << 16  # bytes, unless fewer than two segments would remain
TRY_AGAIN = 1.0  # seconds, if the disk did not take something
GRACE = 10.0  # seconds that a new server waits for a manager
MOST_FILES = 1 << 20  # descriptors: four for each container
LONGEST_MESSAGE, LARGEST_QUEUE = 1 << 14, 1 << 22  # bytes: to the journal; that wait for it
SEND_AGAIN = 0.02  # seconds, if the journal did not take something
MOST_SENT = 100  # messages to the journal before logs get their turn
PRIORITIES = 6, 3  # of the two streams: "info" and "err", as Docker has it (syslog(3))
PARTIAL = b"CONTAINER_PARTIAL_MESSAGE=true\n"  # the line goes on in the next message
LONGEST_LINE = 1 << 20  # bytes: enough for a sync of 50,000 slots
MOST_KEPT = 4096  # sockets
MOST_GIVEN = 64  # at a time: the kernel takes up to 253 with a message (unix(7))


class Log:
    """The segments of one instance; the last one grows."""

    def __init__(self, folder: str, most: int) -> None:
        """:param most: bytes of all its files together"""
        self.folder = folder
        segments = max(2, min(MOST_SEGMENTS, most // LEAST_SEGMENT))
        self.segments, self.most = segments, most // segments
        self.data = self.index = -1  # descriptors of the last segment's files
        self.number = self.size = self.records = 0  # of the last segment
        self.began, self.stream, self.time = 0, -1, 0  # the last record

    def take(self, fifo: int, stream: int) -> int:
        """Move a piece from a FIFO to the end; returns its length, 0 if the FIFO has no writer.

        Raises BlockingIOError if there is nothing yet, FileNotFoundError if the instance has no
        folder any more, OSError if the disk refuses.
        """
        if self.data < 0:
            self._open_last()
        now = time.time_ns()
        if self._used(one_more := self._is_new(now, stream)) >= self.most:
            self._begin_next()
            one_more = True
        if one_more:
            self._add_record(now, stream)
        length = min(LONGEST_PIECE, self.most - self._used(False))
        offset, flags = self.size, os.SPLICE_F_NONBLOCK
        moved = os.splice(fifo, self.data, length, offset_dst=offset, flags=flags)
        self.size += moved
        return moved

    def last(self, length: int) -> bytes:
        """The last piece, which has this length."""
        return os.pread(self.data, length, self.size - length)

    def _is_new(self, now: int, stream: int) -> bool:
        """Whether a piece needs a record of its own."""
        return stream != self.stream or not 0 <= now - self.time < SAME_TIME

    def _used(self, one_more: bool) -> int:
        """How many bytes the segment has, or would have with one more record."""
        return self.size + (self.records + one_more) * RECORD.size

    def _add_record(self, now: int, stream: int) -> None:
        unused = self.records > 0 and self.began == self.size  # no piece came after it
        place = self.records - unused
        record = RECORD.pack(now << 1 | stream, self.size)
        if os.pwrite(self.index, record, place * RECORD.size) < RECORD.size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.records = place + 1
        self.began, self.stream, self.time = self.size, stream, now

    def _open_last(self) -> None:
        """Go on where an earlier process stopped; after a power cut, begin a new segment."""
        with contextlib.suppress(FileExistsError):
            os.mkdir(self.folder, 0o700)
        self._open(max(numbers(self.folder), default=1))
        if self.records:
            last = os.pread(self.index, RECORD.size, (self.records - 1) * RECORD.size)
            self.began = RECORD.unpack(last)[1]
        if self.began > self.size or (self.size and not self.records):
            self._begin_next()

    def _begin_next(self) -> None:
        """Begin a segment; before that, remove the oldest if there are enough."""
        older = numbers(self.folder)
        for number in older[: max(0, len(older) - self.segments + 1)]:
            for path in reversed(paths(self.folder, number)):  # no one knows an index by itself
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)
        self._open(self.number + 1)

    def _open(self, number: int) -> None:
        self.close()
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        data, index = paths(self.folder, number)
        descriptor = os.open(data, flags, 0o600)
        try:
            self.index = os.open(index, flags, 0o600)
        except OSError:
            os.close(descriptor)
            raise
        self.data, self.number, self.began, self.stream = descriptor, number, 0, -1
        self.size = os.fstat(self.data).st_size
        self.records = os.fstat(self.index).st_size // RECORD.size

    def close(self) -> None:
        """Close the files; they are opened again when something comes."""
        if self.data >= 0:
            os.close(self.data)
            os.close(self.index)
            self.data = self.index = -1


def numbers(folder: str) -> list[int]:
    """The numbers of a log's segments, in order; none if there is no such folder."""
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    found = [name[:-4] for name in names if name.endswith(".log")]
    return sorted(int(name) for name in found if name.isdecimal())


def paths(folder: str, number: int) -> tuple[str, str]:
    """The files of a segment: the bytes and the index."""
    return f"{folder}/{number:08}.log", f"{folder}/{number:08}.index"


def end_of(folder: str) -> tuple[int, int]:
    """Where a log ends now: the number of its last segment, and an offset; 0, 0 if it is empty."""
    for number in reversed(numbers(folder)):
        with contextlib.suppress(FileNotFoundError):
            return number, os.stat(paths(folder, number)[0]).st_size
    return 0, 0


class Slot:
    """A container's FIFOs. They are held, but not read before the slot is named."""

    def __init__(self, fifos: list[int]) -> None:
        self.fifos = fifos  # descriptors, for stdout and stderr
        self.terminal: list[int] = []  # the master of its terminal, if it has one
        self.instance, self.most = "", 0
        self.is_over = False  # whether to close it as soon as the disk has taken the rest

    def close(self) -> None:
        """Close the FIFOs and the terminal."""
        for descriptor in self.fifos + self.terminal:
            os.close(descriptor)


Slots = dict[str, Slot]  # by token


class Journald:
    """Sends lines to systemd's journal, without waiting for it.

    By its native protocol (https://systemd.io/JOURNAL_NATIVE_PROTOCOL), a datagram each. What it
    does not take at once is queued; what the queue does not take is lost there, and in the log.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        kind = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK
        self.socket = socket.socket(socket.AF_UNIX, kind)
        self.queue: deque[bytes] = deque()
        self.size = 0  # bytes in the queue
        self.pause = 0.0  # seconds to wait before the rest of it is sent
        self.lost = 0  # lines, since that was told last
        self.rests: dict[tuple[str, int], bytes] = {}  # by token and stream: of unfinished lines

    def add(self, instance: str, token: str, stream: int, piece: bytes) -> None:
        """Send the lines of a piece that an instance has written."""
        rest = self.rests.pop((token, stream), b"")
        if self.size > LARGEST_QUEUE:
            self.lost += piece.count(b"\n") or 1
            return
        *lines, rest = (rest + piece).split(b"\n")
        head = head_of(instance, token, stream)
        for line in lines:
            self.put(head, self.cut(head, line))
        if rest := self.cut(head, rest):
            self.rests[token, stream] = rest
        self.send()

    def cut(self, head: bytes, line: bytes) -> bytes:
        """Send the beginning of a line that is too long for a message; returns the rest."""
        while len(line) > LONGEST_MESSAGE:
            self.put(head + PARTIAL, line[:LONGEST_MESSAGE])
            line = line[LONGEST_MESSAGE:]
        return line

    def end(self, instance: str, token: str) -> None:
        """Nothing more comes of a slot: send the lines that it did not finish."""
        for stream in range(len(STREAMS)):
            if rest := self.rests.pop((token, stream), b""):
                self.put(head_of(instance, token, stream), rest)
        self.send()

    def put(self, head: bytes, line: bytes) -> None:
        """Queue a message. The line has no newline, so that it can't forge another field."""
        message = b"%bMESSAGE=%b\n" % (head, line)
        self.queue.append(message)
        self.size += len(message)

    def send(self) -> None:
        """Send some of what it takes now: meanwhile, no log is written."""
        if self.lost and not self.queue:
            words = b"%d lines of containers are not in this journal, but in their logs" % self.lost
            self.queue.append(b"PRIORITY=4\nSYSLOG_IDENTIFIER=txcontain\nMESSAGE=%b\n" % words)
            self.size, self.lost = len(self.queue[0]), 0
        for _ in range(min(len(self.queue), MOST_SENT)):
            try:
                self.socket.sendto(self.queue[0], self.path)
            except BlockingIOError:
                self.pause = SEND_AGAIN
                return
            except OSError:  # it is not there
                self.lost += 1
            self.size -= len(self.queue.popleft())
        self.pause = 0.0


def head_of(instance: str, token: str, stream: int) -> bytes:
    """The fields of an instance's messages, beside the message itself."""
    names = f"SYSLOG_IDENTIFIER={instance}\nCONTAINER_NAME={instance}\nCONTAINER_ID={token}\n"
    return f"PRIORITY={PRIORITIES[stream]}\n{names}".encode()


Kept = dict[str, int]  # descriptors of sockets, by what the manager calls them


class Partner:
    """The holder, whom the server tells what to hold."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection

    def tell(self, *words: object, passed: tuple[int, ...] = ()) -> None:
        """Send a message, with descriptors; does nothing if the holder was killed."""
        message = " ".join(map(str, words)).encode()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            socket.send_fds(self.connection, [message], list(passed))


def hold(connection: socket.socket, slots: Slots, kept: Kept) -> bool:
    """Hold what the server holds; returns True if the server was killed, False if it ended."""
    while True:
        message, passed, _, _ = socket.recv_fds(connection, 4096, 2)
        if not message:
            return True
        verb, *words = message.decode().split()
        if verb == "open":
            slots[words[0]] = Slot(passed)
        elif verb == "name":
            slots[words[0]].instance, slots[words[0]].most = words[1], int(words[2])
        elif verb == "terminal":
            slots[words[0]].terminal = passed
        elif verb == "close":
            slots.pop(words[0]).close()
        elif verb == "keep":
            kept[words[0]] = passed[0]
        elif verb == "unkeep":
            os.close(kept.pop(words[0]))
        else:
            return False


class Server:
    """Listens to the manager, and reads the FIFOs of all named slots."""

    def __init__(
        self,
        run: str,
        instances: str,
        listener: socket.socket,
        slots: Slots,
        kept: Kept,
        partner: Partner,
    ) -> None:
        self.run_folder, self.instances = run, instances
        self.listener, self.slots, self.kept, self.partner = listener, slots, kept, partner
        self.logs: dict[str, Log] = {}  # by instance
        self.followed: set[str] = set()  # instances whose next piece is to be announced
        self.waiting: list[tuple[str, int]] = []  # tokens and streams that the disk did not take
        self.silent: set[str] = set()  # tokens whose terminal is not read for now
        self.manager: socket.socket | None = None
        self.received = b""
        self.passed: list[int] = []  # descriptors, each for a line that is still to come
        self.to_send: list[tuple[bytes, list[int]]] = []  # with the descriptors that go along
        self.deadline = time.monotonic() + GRACE  # until then, wait for a manager
        self.epoll = select.epoll()
        self.handlers: dict[int, Callable[[], object]] = {}  # by descriptor
        of_slots = self.sync, self.open, self.name, self.drain, self.close, self.follow, self.rename
        verbs = (
            *of_slots,
            self.terminal,
            self.lend,
            self.keep,
            self.unkeep,
            self.retain,
            self.give,
            self.journal,
        )
        self.verbs: dict[str, Callable[..., None]] = {verb.__name__: verb for verb in verbs}
        self.journald: Journald | None = None  # if the manager wants that
        self.before: Journald | None = None  # of the manager before
        self.add(listener.fileno(), self.accept)
        for token, slot in slots.items():
            if slot.instance:
                self.begin(token)

    # -- what can be read ------------------------------------------------------

    def add(self, descriptor: int, handler: Callable[[], object]) -> None:
        """Call the handler whenever a descriptor can be read."""
        self.handlers[descriptor] = handler
        self.epoll.register(descriptor, select.EPOLLIN)

    def remove(self, descriptor: int) -> None:
        """Don't call it any more. Needed before closing: the other process has it open too."""
        if self.handlers.pop(descriptor, None):
            self.epoll.unregister(descriptor)

    def serve(self) -> None:
        """Serve until the partner is killed; ends the process when nobody needs it."""
        self.add(self.partner.connection.fileno(), lambda: None)
        while True:
            to_try = self.waiting or self.silent
            timeout = TRY_AGAIN if to_try or not self.manager else None
            if self.journald and self.journald.queue:
                timeout = self.journald.pause
            for descriptor, _ in self.epoll.poll(timeout):
                if descriptor == self.partner.connection.fileno():
                    self.remove(descriptor)
                    return
                if descriptor in self.handlers:  # not removed by an earlier one
                    self.handlers[descriptor]()
            self.send()
            if self.journald:
                self.journald.send()
            if timeout:
                self.try_again()
            if not self.manager and self.is_over():
                self.partner.tell("end")
                self.partner.connection.recv(1)  # until it has ended
                raise SystemExit(0)

    def is_over(self) -> bool:
        """Whether nobody needs this process any more."""
        if time.monotonic() < self.deadline:
            return False
        for token in list(self.slots):
            if all(look(fifo) & select.POLLHUP for fifo in self.slots[token].fifos):
                self.finish(token)
        return not self.slots and not self.kept

    def leave(self) -> None:
        """Close what only a server has; this process becomes the holder."""
        self.epoll.close()
        for log in self.logs.values():
            log.close()
        if self.manager is not None:
            self.manager.close()

    # -- the manager -----------------------------------------------------------

    def accept(self) -> None:
        """A manager has connected; an earlier one is gone."""
        try:
            connection, _ = self.listener.accept()
        except OSError:  # it is gone already
            return
        self.hang_up()
        connection.setblocking(False)
        self.manager = connection
        self.add(connection.fileno(), self.receive)

    def hang_up(self) -> None:
        """The manager is gone."""
        if self.manager is not None:
            self.remove(self.manager.fileno())
            self.manager.close()
            self.manager, self.received, self.to_send = None, b"", []
            while self.passed:
                os.close(self.passed.pop())
            self.deadline = 0.0

    def receive(self) -> None:
        """Do what the manager says."""
        assert self.manager is not None
        try:
            data, passed, _, _ = socket.recv_fds(self.manager, 1 << 16, MOST_GIVEN)
            self.passed += passed
        except BlockingIOError:
            return
        except OSError:
            data = b""
        *lines, self.received = (self.received + data).split(b"\n")
        try:
            for line in lines:
                verb, *words = line.decode().split(" ")
                self.verbs[verb](*words)
        except (LookupError, TypeError, ValueError):  # this is no manager
            data = b""
        if not data or len(self.received) > LONGEST_LINE:
            self.hang_up()

    def say(self, *words: object, passed: list[int] | None = None) -> None:
        """Tell the manager something, if there is one, and pass it descriptors."""
        if self.manager is not None:
            line = " ".join(map(str, words)).encode() + b"\n"
            self.to_send.append((line, passed or []))

    def send(self) -> None:
        """Send what was said; what the manager does not take is sent later."""
        while self.manager is not None and self.to_send:
            text, passed = self.to_send[0]
            try:
                rest = text[socket.send_fds(self.manager, [text], passed) :]
            except BlockingIOError:
                return
            except OSError:
                self.hang_up()
                return
            self.to_send[:1] = [(rest, [])] if rest else []

    # -- what it asks for --------------------------------------------------------

    def sync(self, *tokens: str) -> None:
        """These are all slots: finish all others. The manager is a new one."""
        self.before, self.journald = self.journald, None
        for token in set(self.slots) - set(tokens):
            self.finish(token)

    def journal(self, path: str) -> None:
        """Send all lines to systemd's journal, too."""
        same = self.before is not None and self.before.path == path
        self.journald = self.before if same else Journald(path)

    def open(self, token: str) -> None:
        """Open a slot's FIFOs."""
        try:
            if token not in self.slots:
                fifos = open_fifos(os.path.join(self.run_folder, "slots", token))
                self.slots[token] = Slot(fifos)
                self.partner.tell("open", token, passed=tuple(fifos))
        except OSError as error:
            self.say("failed", token, error.strerror)
        else:
            self.say("opened", token)

    def name(self, token: str, instance: str, most: str) -> None:
        """Read a slot's FIFOs from now on."""
        slot = self.slots.get(token)
        if slot is None or slot.instance:
            return
        slot.instance, slot.most = instance, int(most)
        self.partner.tell("name", token, instance, most)
        self.begin(token)

    def begin(self, token: str) -> None:
        """Read a slot's FIFOs. Its instance may have had another slot before."""
        slot = self.slots[token]
        if slot.instance not in self.logs:
            self.logs[slot.instance] = Log(self.folder(slot.instance), slot.most)
        for stream in range(len(slot.fifos)):
            self.read(token, stream)
        self.listen(token)

    def read(self, token: str, stream: int) -> None:
        """Move what comes on a stream, as it comes."""
        self.add(self.slots[token].fifos[stream], lambda: self.take(token, stream))

    def listen(self, token: str) -> None:
        """Move what comes from a slot's terminal, as it comes."""
        for master in self.slots[token].terminal:
            self.add(master, lambda: self.hear(token))

    def hear(self, token: str) -> None:
        """Move a piece from a terminal into the FIFO, and on to the file.

        Not if the disk did not take the last one, nor while no one has the other end open.
        """
        slot = self.slots[token]
        if self.is_waiting(token) or not pump(slot.terminal[0], slot.fifos[0]):
            self.remove(slot.terminal[0])
            self.silent.add(token)
        self.take(token, 0)

    def drain(self, token: str) -> None:
        """Move what is in a slot's FIFOs now."""
        self.empty(token)
        self.say("drained", token)

    def close(self, token: str) -> None:
        """The container has ended: move what is there, and close its FIFOs."""
        self.finish(token)
        self.say("closed", token)

    def terminal(self, token: str) -> None:
        """Hold a slot's terminal, unless it has one."""
        master, slot = self.passed.pop(0), self.slots.get(token)
        if slot is None or slot.terminal:
            os.close(master)
            return
        os.set_blocking(master, False)  # to splice(2), its own flag is the pipe's only
        slot.terminal = [master]
        self.partner.tell("terminal", token, passed=(master,))
        if slot.instance:
            self.listen(token)

    def lend(self, token: str) -> None:
        """Give the manager a slot's terminal."""
        terminal = self.slots[token].terminal if token in self.slots else []
        self.say("lent", token, len(terminal), passed=[*terminal])

    def rename(self, token: str, instance: str) -> None:
        """Rename the folder of a slot's instance: here, nothing is written to it meanwhile."""
        with contextlib.suppress(OSError, KeyError):  # the manager looks whether it has worked
            before = self.slots[token].instance
            os.rename(os.path.join(self.instances, before), os.path.join(self.instances, instance))
            self.logs[instance] = self.logs.pop(before)
            self.logs[instance].folder = self.folder(instance)
            for other in [one for one, slot in self.slots.items() if slot.instance == before]:
                self.slots[other].instance = instance
                self.partner.tell("name", other, instance, self.slots[other].most)
        self.say("renamed", token)

    def follow(self, instance: str, segment: str, offset: str) -> None:
        """Say when there is more than this; at once if there is already."""
        if end_of(self.folder(instance)) == (int(segment), int(offset)):
            self.followed.add(instance)
        else:
            self.say("grew", instance)

    def folder(self, instance: str) -> str:
        """Where an instance's log is."""
        return os.path.join(self.instances, instance, LOG)

    # -- sockets that are kept ---------------------------------------------------

    def keep(self, key: str) -> None:
        """Keep the socket that has come with this line; an earlier one of this name is closed."""
        descriptor = self.passed.pop(0)
        if key not in self.kept and len(self.kept) >= MOST_KEPT:
            os.close(descriptor)
            self.say("refused", key, f"{MOST_KEPT} sockets are kept already")
            return
        self.forget(key)
        self.kept[key] = descriptor
        self.partner.tell("keep", key, passed=(descriptor,))
        self.say("kept", key)

    def unkeep(self, key: str) -> None:
        """Close a socket."""
        self.forget(key)
        self.say("unkept", key)

    def retain(self, *keys: str) -> None:
        """Close all others: an `unkeep` is lost if the one it was told to is killed just then."""
        for key in set(self.kept) - set(keys):
            self.forget(key)

    def forget(self, key: str) -> None:
        """Close a socket, if it is kept."""
        if key in self.kept:
            os.close(self.kept.pop(key))
            self.partner.tell("unkeep", key)

    def give(self, first: str) -> None:
        """Give the manager some sockets, from this number on."""
        some = list(self.kept.items())[int(first) :][:MOST_GIVEN]
        self.say("given", first, *dict(some), passed=[descriptor for _, descriptor in some])

    # -- FIFOs -----------------------------------------------------------------

    def finish(self, token: str) -> None:
        """Move what is there and close the slot, now or as soon as the disk takes it."""
        if token in self.slots:
            self.empty(token)
        if token in self.slots:
            self.slots[token].is_over = True
            if not self.is_waiting(token):
                self.let_go(token)

    def is_waiting(self, token: str) -> bool:
        """Whether the disk did not take something of a slot."""
        return any(token == waiting for waiting, _ in self.waiting)

    def empty(self, token: str) -> None:
        """Move what is in a slot's terminal and FIFOs, at most as much as these hold."""
        for _ in range(MOST_PIECES):
            if (slot := self.slots.get(token)) and any(map(has_input, slot.terminal)):
                self.hear(token)
        for stream in range(len(STREAMS)):
            slot = self.slots.get(token)
            is_used = slot and has_input(slot.fifos[stream])
            left = LARGEST_PIPE if is_used else 0  # who writes nothing needs no files
            while left > 0 and (moved := self.take(token, stream)):
                left -= moved

    def take(self, token: str, stream: int) -> int:
        """Move a piece; returns its length, 0 if none can be moved now."""
        slot = self.slots.get(token)
        if slot is None or not slot.instance:
            return 0
        try:
            moved = self.logs[slot.instance].take(slot.fifos[stream], stream)
        except BlockingIOError:
            return 0
        except FileNotFoundError:  # the instance has been removed
            self.let_go(token)
            return 0
        except OSError as error:
            return self.wait(token, stream, error)
        if slot.instance in self.followed:
            self.followed.discard(slot.instance)
            self.say("grew", slot.instance)
        if moved and self.journald:
            piece = self.logs[slot.instance].last(moved)
            self.journald.add(slot.instance, token, stream, piece)
        if not moved:  # it has no writer, or has something that can't be spliced
            self.remove(slot.fifos[stream])
        return moved

    def wait(self, token: str, stream: int, error: OSError) -> int:
        """The disk did not take it: try again later. Meanwhile the writer waits."""
        fifo = self.slots[token].fifos[stream]
        if fifo in self.handlers:
            self.remove(fifo)
            self.say("trouble", self.slots[token].instance, error.strerror)
        if (token, stream) not in self.waiting:
            self.waiting.append((token, stream))
        return 0

    def try_again(self) -> None:
        """Try whether the disk takes now what it did not take before."""
        waiting, self.waiting = self.waiting, []
        for token, stream in waiting:
            self.take(token, stream)
            if token in self.slots and (token, stream) not in self.waiting:
                self.read(token, stream)
        for token in {token for token, _ in waiting} & set(self.slots):
            if self.slots[token].is_over:
                self.finish(token)
        for token in self.silent & set(self.slots):
            seen = look(self.slots[token].terminal[0])
            if not self.is_waiting(token) and (seen & select.POLLIN or not seen & select.POLLHUP):
                self.silent.discard(token)
                self.listen(token)

    def let_go(self, token: str) -> None:
        """Close a slot's FIFOs, and its log if no other slot writes to it."""
        slot = self.slots.pop(token)
        for descriptor in slot.fifos + slot.terminal:
            self.remove(descriptor)
        slot.close()
        self.silent.discard(token)
        self.waiting = [each for each in self.waiting if each[0] != token]
        if self.journald:
            self.journald.end(slot.instance, token)
        self.partner.tell("close", token)
        if slot.instance and slot.instance not in {one.instance for one in self.slots.values()}:
            self.logs.pop(slot.instance).close()
            if slot.instance in self.followed:
                self.followed.discard(slot.instance)
                self.say("grew", slot.instance)


def open_fifos(slot: str) -> list[int]:
    """Descriptors for the FIFOs of a slot.

    Raises OSError.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW
    stdout = os.open(os.path.join(slot, STREAMS[0]), flags)
    try:
        return [stdout, os.open(os.path.join(slot, STREAMS[1]), flags)]
    except OSError:
        os.close(stdout)
        raise


def look(fifo: int) -> int:
    """What a FIFO has (poll(2)): POLLIN is something to read, POLLHUP no writer any more."""
    poll = select.poll()
    poll.register(fifo, select.POLLIN)
    return sum(seen for _, seen in poll.poll(0))


def has_input(descriptor: int) -> bool:
    """Whether there is something to read."""
    return bool(look(descriptor) & select.POLLIN)


def pump(master: int, fifo: int) -> bool:
    """Move what comes from a terminal into a FIFO; returns whether its other end is open."""
    path, flags = f"/proc/self/fd/{fifo}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        with open(os.open(path, flags), "wb", 0) as into:
            return os.splice(master, into.fileno(), LONGEST_PIECE, flags=os.SPLICE_F_NONBLOCK) > 0
    except BlockingIOError:
        return True
    except OSError:  # EIO; or there are too few descriptors, and it is tried again
        return False


def serve_and_hold(run: str, instances: str, listener: socket.socket) -> None:
    """Be two processes, each of which replaces the other if that is killed."""
    slots: Slots = {}
    kept: Kept = {}
    server: Server | None = None  # in the process that serves
    while True:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        is_child = fork() == 0
        if is_child:
            ours, theirs = theirs, ours
        theirs.close()
        if (server is None) == is_child:  # the new process takes the part that is free
            if server is None:
                server = Server(run, instances, listener, slots, kept, Partner(ours))
            server.partner = Partner(ours)
            server.serve()
        else:
            if server is not None:
                server.leave()
                server = None
            if not hold(ours, slots, kept):
                return
        ours.close()


def fork() -> int:
    """fork(2), tried again while there are too many processes."""
    while True:
        try:
            return os.fork()
        except OSError:
            time.sleep(TRY_AGAIN)


def main() -> None:
    """Serve, unless another process already does."""
    run, instances, group = sys.argv[1:]
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, signal.SIG_IGN)
    os.chdir("/")
    with contextlib.suppress(OSError):  # it already leads a session
        os.setsid()
    with contextlib.suppress(OSError), open(group, "w") as file:  # leave the manager's cgroup
        file.write("0")
    raise_limit()
    lock = os.open(os.path.join(run, "logd.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return
    path = os.path.join(run, "logd.sock")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    os.chmod(path, 0o600)
    listener.listen()
    serve_and_hold(run, instances, listener)


def raise_limit() -> None:
    """Allow as many descriptors as the kernel does (RLIMIT_NOFILE)."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for most in (max(hard, MOST_FILES), hard):
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
            return


if __name__ == "__main__":
    main()
