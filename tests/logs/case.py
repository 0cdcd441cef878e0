"""What tests of logs share."""

import os
from typing import Any

from hypothesis import strategies as st

from tests.fakes import MachineTestCase
from txcontain.logs import segments
from txcontain.logs.logd import LOG
from txcontain.logs.segments import EVERYTHING

# What a container writes: pieces of a stream each. One that is no text has its writer killed.
PIECES = st.lists(
    st.tuples(
        st.sampled_from([0, 1]), st.sampled_from([b"", b"a", b"long" * 99, b"\n", b"b\n\nc"])
    ),
    max_size=60,
)


class LogTestCase(MachineTestCase):
    """A test of a log in a temporary folder, and of the pipe that it comes from."""

    def setUp(self) -> None:
        super().setUp()
        self.log_folder = os.path.join(self.folder, LOG)
        self.pipe, self.into = os.pipe2(os.O_NONBLOCK)
        self.addCleanup(os.close, self.pipe)
        self.addCleanup(os.close, self.into)

    def on_disk(self) -> Any:
        """The size of the log's files, in bytes."""
        return sum(entry.stat().st_size for entry in os.scandir(self.log_folder))

    def move(self, log: Any, data: Any, stream: int = 0) -> None:
        """A container writes, and the log process moves it."""
        while data:
            data = data[os.write(self.into, data) :]
            try:
                while log.take(self.pipe, stream):
                    pass
            except BlockingIOError:
                pass

    def read_all(
        self, position: Any = segments.BEGINNING, wanted: Any = EVERYTHING, folder: Any = None
    ) -> Any:
        """All pieces from a position on."""
        folder = folder or self.log_folder
        found: list[Any] = []
        last = segments.end(folder)
        while True:
            pieces, position = segments.read(folder, position, last, wanted)
            if not pieces:
                return found
            found += pieces


def text_of(pieces: Any) -> Any:
    """The bytes of pieces."""
    return b"".join(piece.data for piece in pieces)
