"""What is done for a stack, as data: ``decide.py`` makes steps, the keeper carries them out."""

from __future__ import annotations

from datetime import datetime

from attrs import frozen


@frozen
class Step:
    """Something to be done for a service."""

    service: str


@frozen
class OfInstance(Step):
    """Something to be done with one instance."""

    instance: str


@frozen
class Launch(OfInstance):
    """Launch a new instance."""

    number: int  # 0: it is a run of a job
    revision: str  # that it will have as a label
    config: str
    due: float | None = None  # unix time of the run of a schedule that it is

    def __str__(self) -> str:
        return f"launch {self.instance}, of {self.config}"


@frozen
class Start(OfInstance):
    """Start an instance again that has been stopped."""

    def __str__(self) -> str:
        return f"start {self.instance}"


@frozen
class Withdraw(OfInstance):
    """Lead no new connection to an instance, and wait until those that it has are over."""

    def __str__(self) -> str:
        return f"withdraw {self.instance}"


@frozen
class Remove(OfInstance):
    """End an instance, and remove it."""

    def __str__(self) -> str:
        return f"remove {self.instance}"


@frozen
class Settle(Step):
    """Take note that a service is as it should be."""


@frozen
class GiveUp(Step):
    """Take note that an update has failed, and do what its failure_action says."""

    why: str


@frozen
class Consider(Step):
    """Take note up to when a schedule has been looked at, and of the run that is due."""

    until: float  # unix time
    due: float | None = None
    missed: float | None = None  # the first time that was missed

    @property
    def told(self) -> str:
        """What a person should know; "" if all is as it should be."""
        if self.missed is None:
            return ""
        when = datetime.fromtimestamp(self.missed).astimezone().isoformat(" ", "minutes")
        late = "runs late" if self.due is not None else "does not catch up"
        return f"missed its run of {when}, and {late}"


@frozen
class Ran(Step):
    """Take note that the run that was due has begun, or can't be begun."""

    why: str = ""  # it can't


@frozen
class Forget(Step):
    """Take note that nothing of a stack is there any more; ``service`` is empty."""


@frozen
class Wait(Step):
    """Look again at this time; ``what`` is waited for."""

    until: float  # by the clock that counts seconds
    what: str = ""


NOTES = (Settle, GiveUp, Consider, Ran, Forget)  # what changes only what is kept
SHOWN = (Launch, Start, Withdraw, Remove)  # what a person is told of before it is done
