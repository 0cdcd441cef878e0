"""What a command says if it fails."""


class CliError(Exception):
    """A command has failed. Its text is the reason, written for the person who typed it."""


class HungUp(CliError):
    """The connection was cut before the answer was complete."""


class Misused(CliError):
    """The command line is wrong, in a way that its parser does not see."""


class Refused(CliError):
    """The manager refused the request.

    :ivar code: the HTTP status of its answer
    :ivar reason: why, in one line or several
    :ivar kind: the type of the problem, if the manager has said it
    """

    def __init__(self, code: int, reason: str, kind: str = "") -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
        self.kind = kind


def chain(text: str) -> str:
    """Return a sentence and its causes, which have arrows before them, as lines, indented."""
    return text.replace(" → ", "\n  ")
