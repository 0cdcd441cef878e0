"""The writing thread, with a real one."""

import threading
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, DeferredList
from twisted.trial.unittest import TestCase

from txcontain.host import writing
from txcontain.host.writing import Writer


class WriterTests(TestCase):
    """One thread for all writes."""

    async def test_order(self) -> None:
        """All writes are done in order, by one thread that is not the reactor's."""
        writer, done = Writer(reactor), []
        work = [
            writer.write(lambda at=at: done.append((at, threading.get_ident())))
            for at in range(100)
        ]
        await DeferredList(work)
        await writer.stop()
        self.assertEqual([at for at, _ in done], list(range(100)))
        (thread,) = {thread for _, thread in done}
        self.assertNotEqual(thread, threading.get_ident())

    async def test_failure(self) -> None:
        """A failed write is told to the caller, and the writes after it are done."""
        writer = Writer(reactor)
        failed, done = writer.write(lambda: 1 / 0), writer.write(lambda: 7)
        await self.assertFailure(failed, ZeroDivisionError)
        self.assertEqual(await done, 7)
        await writer.stop()

    async def test_reactor_is_not_woken(self) -> None:
        """If the reactor can't be woken, it hears of a write later, and of those after it too."""
        call = reactor.callFromThread
        calls = []

        def fails_to_wake(*arguments: Any) -> None:
            call(*arguments)
            calls.append(arguments)
            if len(calls) == 1:
                raise OSError

        self.patch(reactor, "callFromThread", fails_to_wake)
        writer = Writer(reactor)
        self.assertEqual([await writer.write(lambda: 7), await writer.write(lambda: 8)], [7, 8])
        await writer.stop()

    async def test_frozen(self) -> None:
        """A frozen disk does not keep a manager from ending."""
        self.patch(writing, "STOP_WITHIN", 0.01)
        writer, thawed = Writer(reactor), threading.Event()
        written = writer.write(thawed.wait)
        await Deferred.fromCoroutine(writer.stop())
        self.assertFalse(written.called)
        thawed.set()
        await written
        self.patch(writing, "STOP_WITHIN", 5)
        await writer.stop()
