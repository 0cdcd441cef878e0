"""Runs programs of the host beside the reactor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.utils import getProcessOutputAndValue

TIMED_OUT = 124  # the exit status of timeout(1) if it had to end the program


async def run(
    reactor: Any, program: str, arguments: Sequence[str], stdin: bytes | None, within: float | None
) -> tuple[bytes, bytes, int]:
    """Run a program; returns its output, its complaint and its status: negative, a signal.

    :param within: seconds, after which it is ended, with the status TIMED_OUT
    """
    if within is not None:
        program, arguments = "/usr/bin/timeout", [str(within), program, *arguments]
    ran = getProcessOutputAndValue(
        program, arguments, env={"LC_ALL": "C"}, reactor=reactor, stdinBytes=stdin
    )
    # If the program was killed, the failure holds no exception but a tuple with the signal.
    ran.addErrback(lambda failure: (*failure.value[:2], -failure.value[2]))
    ended: tuple[bytes, bytes, int] = await ran
    return ended


async def complaint_of(
    reactor: Any,
    program: str,
    arguments: Sequence[str],
    stdin: bytes | None = None,
    within: float | None = None,
) -> str:
    """The same; returns its complaint, and nothing if it has worked."""
    _, complaint, status = await run(reactor, program, arguments, stdin, within)
    if status == TIMED_OUT and within is not None:
        return f"{program} did not end within {within:g} s"
    how = f"exit status {status}" if status > 0 else f"killed by signal {-status}"
    return (complaint.decode(errors="replace").strip() or how) if status else ""
