"""What a command has to say where it can't do what was asked."""


class CliError(Exception):
    """A command has failed. Its text is the reason, written for the person who typed it."""


class Refused(CliError):
    """The manager was asked, and said no.

    :ivar code: the HTTP status of its answer
    :ivar reason: why, in one line or several
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
