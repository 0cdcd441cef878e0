"""The thread that writes, with a real one."""

import threading

from twisted.internet import reactor
from twisted.internet.defer import Deferred, DeferredList
from twisted.trial.unittest import TestCase

from txcontain.host import writing
from txcontain.host.writing import Writer


class WriterTests(TestCase):
    """One thread beside the reactor."""

    async def test_order(self) -> None:
        """All is done in the order in which it was begun, by one thread beside the reactor's."""
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
        """A failure is that of whoever asked for it, and what follows is done all the same."""
        writer = Writer(reactor)
        failed, done = writer.write(lambda: 1 / 0), writer.write(lambda: 7)
        await self.assertFailure(failed, ZeroDivisionError)
        self.assertEqual(await done, 7)
        await writer.stop()

    async def test_frozen(self) -> None:
        """A disk that takes nothing keeps no manager from ending."""
        self.patch(writing, "STOP_WITHIN", 0.01)
        writer, thawed = Writer(reactor), threading.Event()
        written = writer.write(thawed.wait)
        await Deferred.fromCoroutine(writer.stop())
        self.assertFalse(written.called)
        thawed.set()
        await written
        self.patch(writing, "STOP_WITHIN", 5)
        await writer.stop()
