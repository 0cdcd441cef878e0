"""What can go wrong, as its user reads it.

Every error carries a *chain*: short statements that lead from what was being
done to its cause, and last, where there is one, to what to do about it.
"""

from __future__ import annotations

from typing import Any


class Error(Exception):
    """Something could not be done; ``chain`` says why, outermost first."""

    def __init__(self, *chain: str) -> None:
        super().__init__(*chain)
        self.chain = chain
        self.details: dict[str, Any] = {}  # more for programs, in a problem document

    def __str__(self) -> str:
        return " → ".join(self.chain)


class InvalidData(Error):
    """What was sent is not what this request takes."""


class TooLarge(InvalidData):
    """What was sent is longer than this request takes."""


class Malformed(Error):
    """The request is no HTTP that can be understood in one way only."""


class Unauthenticated(Error):
    """The caller has not shown who it is."""


class Forbidden(Error):
    """The request is one that this caller may not make."""


class ConfigExists(Error):
    """A config of this name, major and minor is kept already."""


class NoSuchConfig(Error):
    """No config of this name, major and minor is kept."""


class ConfigInUse(Error):
    """Instances use this config."""


class InstanceExists(Error):
    """There is an instance of this name already."""


class NoSuchSecret(Error):
    """There is no secret of this name."""


class SecretInUse(Error):
    """Instances have this secret."""


class NoSuchInstance(Error):
    """There is no instance of this name."""


class Ambiguous(Error):
    """What was asked for stands for several instances, and only one can be meant."""


class WrongState(Error):
    """An instance is not in a state in which this can be done."""


class NoSuchVolume(Error):
    """There is no volume of this name."""


class NoSuchImage(Error):
    """There is no image of this name."""


class NoSuchStack(Error):
    """There is no stack of this name."""


class NoSuchStep(Error):
    """There is no launch of this name that is stepped through."""


class NoSuchService(Error):
    """There is no service of this name."""


class NoSuchNode(Error):
    """There is no node of this name."""


class InUse(Error):
    """Instances use what was to be removed or changed."""


class ConfigAtFault(Error):
    """A launch cannot work as its config (or its images) stand."""


class NoSuchProgram(ConfigAtFault):
    """What is to be run, or what it needs to be run, is not in the container."""


class CannotRun(ConfigAtFault):
    """What is to be run is in the container, but can't be run."""


class CalledOff(Error):
    """What was asked for was called off by another request, before it was done."""


class NotRunning(Error):
    """What was asked for needs an instance that runs."""


class NoSuchPath(Error):
    """There is nothing at this path in the container."""


class CannotCopy(Error):
    """Files could not be read or written in the container, for a reason that lies in it."""


class MountableExists(Error):
    """A mountable of this name is kept already."""


class TooMany(Error):
    """As much of this as the manager allows is there already."""


class Unavailable(Error):
    """What has to be asked for this does not answer now."""


class NotInSwarm(Error):
    """The engine of many hosts does not have this."""


class OnlyInSwarm(Error):
    """Only the engine of many hosts has this."""


class MachineAtFault(Error):
    """A launch failed because of this machine: its kernel, disk, memory or privileges."""


def logged(text: str) -> str:
    """A text for the manager's log: in ASCII, and on one line, whatever it holds."""
    return ascii(text.replace("→", "->"))[1:-1]
