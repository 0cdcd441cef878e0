"""How a container has ended: what its monitor wrote down, in words."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator

from attrs import evolve, frozen

from txcontain.host.files import NoFile, open_file

SIGNALS = {signal.strsignal(number): int(number) for number in signal.valid_signals()}
UNSEEN = "ended, and its monitor was killed too: no one saw how"
BY_SIGKILL = 128 + signal.SIGKILL  # a shell's status if its last command was killed
DONE = re.compile(r"Done(?:\((\d+)\))?")
OUT_OF_MEMORY, ASKED, BY_REBOOT = "out of memory", "asked to end", "ended by a reboot"
UNHEALTHY = "unhealthy"
# What a reason begins with, if neither the status nor the signal tells what kind of end it is.
KINDS = {
    OUT_OF_MEMORY: "out_of_memory",
    ASKED: "asked",
    BY_REBOOT: "reboot",
    UNHEALTHY: "unhealthy",
}
ALL_KINDS = (*KINDS.values(), "signal", "success", "failure", "unknown")


@frozen
class Exit:
    """How a container ended: with a status, by a signal, or unknown."""

    status: int | None = None
    signal: int | None = None
    reason: str = ""
    at: float = 0.0  # unix time, seconds

    @property
    def failed(self) -> bool:
        """Whether this is anything but exit status 0."""
        return self.status != 0

    @property
    def kind(self) -> str:
        """How it ended, in a word of ALL_KINDS."""
        for words, kind in KINDS.items():
            if self.reason.startswith(words):
                return kind
        if self.signal is not None:
            return "signal"
        return {0: "success", None: "unknown"}.get(self.status, "failure")

    def __str__(self) -> str:
        return self.reason


def read_exit(folder: str, now: float) -> Exit:
    """What the monitor wrote of the end of the container in this run directory.

    Raises OSError if it is there but can't be read.
    """
    try:
        with open_file(os.path.join(folder, "exit")) as file:
            words = file.read(1024).decode()
            at = os.fstat(file.fileno()).st_mtime
    except (FileNotFoundError, NoFile, UnicodeDecodeError):
        return Exit(reason=UNSEEN, at=now)
    how = _parse(*words.rsplit("+", 1))
    return Exit(*how, at=now if how[2] == UNSEEN else at)  # else the file is as old as the monitor


def _parse(before: str, words: str = "") -> tuple[int | None, int | None, str]:
    """The status or the signal in a shell's words; bash names the signal before them."""
    done = DONE.fullmatch(words.strip())
    status = int(done[1] or 0) if done else 0
    number = SIGNALS.get(words.replace("(core dumped)", "").strip())
    if status > 128 and any(SIGNALS.get(said) == status - 128 for said in _said_by_bash(before)):
        number = status - 128
    if number is not None:
        return None, number, f"killed by {_name(number)}"
    return (status, None, f"exit status {status}") if done else (None, None, UNSEEN)


def exit_of(status: int | None, number: int | None, at: float) -> Exit:
    """The end of a process of ours, with this status or by this signal."""
    reason = f"exit status {status}" if number is None else f"killed by {_name(number)}"
    return Exit(status if number is None else None, number, reason, at)


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # one of those between SIGRTMIN and SIGRTMAX
        return f"SIGRTMIN+{number - signal.SIGRTMIN}"


def _said_by_bash(words: str) -> Iterator[str]:
    """Each piece of a complaint as "sh: line 26: 32028 Killed     COMMAND"."""
    for said in re.findall(r": +[0-9]+ +(.+?)(?: \(core dumped\))? {2,}", words):
        yield said.strip()


def by_someone(how: Exit, because: str) -> Exit:
    """This exit, if no lack of memory explains it.

    :param because: why this manager has killed the process; empty if it has not
    """
    if how.signal != signal.SIGKILL:
        return how
    if not because:
        return evolve(how, reason=f"{how.reason}, by someone else than this manager")
    return evolve(how, reason=f"{because} ({how.reason})")


def with_kills(how: Exit, kills: int) -> Exit:
    """This exit, if the kernel killed so many of the processes for want of memory.

    The kills may be unrelated to it: a worker may have been killed days before.
    """
    if how.signal == signal.SIGKILL or how.status == BY_SIGKILL:
        return evolve(how, reason=f"{OUT_OF_MEMORY} ({how.reason})")
    killed = f"{kills} of its processes had been killed for want of memory"
    return evolve(how, reason=f"{how.reason}; {killed}")
