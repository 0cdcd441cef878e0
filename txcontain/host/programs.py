"""Runs programs of the host beside the reactor."""

from __future__ import annotations

from typing import Any

from twisted.internet.utils import getProcessOutputAndValue


async def complaint_of(
    reactor: Any, program: str, arguments: list[str], stdin: bytes | None = None
) -> str:
    """Run a program; returns its complaint, and nothing if it has worked."""
    ran = getProcessOutputAndValue(
        program, arguments, env={"LC_ALL": "C"}, reactor=reactor, stdinBytes=stdin
    )
    # If the program was killed, the failure holds no exception but a tuple with the signal.
    ran.addErrback(lambda failure: (*failure.value[:2], -failure.value[2]))
    _, complaint, status = await ran
    how = f"exit status {status}" if status > 0 else f"killed by signal {-status}"
    return (complaint.decode(errors="replace").strip() or how) if status else ""
