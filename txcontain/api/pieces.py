"""Long answers that are made piece by piece, with a turn of the reactor for others after each."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from txcontain.later import Timer, pause
from txcontain.logs.push import PushProducer

TAKE_WITHIN = 30.0  # seconds


async def send_pieces(reactor: Any, request: Any, pieces: Iterable[bytes]) -> None:
    """Send pieces as fast as the client takes them; none is made before its turn.

    A client that takes nothing for TAKE_WITHIN is given up: what is sent takes memory.
    """
    producer, give_up = PushProducer(request), Timer(reactor, lambda: request.abortConnection())
    producer.begin()
    try:
        for piece in pieces:
            give_up.after(TAKE_WITHIN)
            if not await producer.free():
                return
            request.write(piece)
            await pause(reactor, 0)
    finally:
        give_up.cancel()
    producer.finish()
