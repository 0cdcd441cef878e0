"""Long answers that are made piece by piece, with a turn of the reactor for others after each."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from txcontain.later import pause
from txcontain.logs.push import PushProducer


async def send_pieces(reactor: Any, request: Any, pieces: Iterable[bytes]) -> None:
    """Send pieces as fast as the client takes them; none is made before its turn."""
    producer = PushProducer(request)
    producer.begin()
    for piece in pieces:
        if not await producer.free():
            return
        request.write(piece)
        await pause(reactor, 0)
    producer.finish()
