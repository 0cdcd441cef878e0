"""What tar(1) says while it unpacks: what it had to leave out, and what it complains of.

Its exit status does not tell enough: it is 0 if a file came out too short or the archive ends
within a header, and 2 if only a device node could not be made.
"""

from __future__ import annotations

import re
from typing import Any

from attrs import define, field

KEPT, NAMED = 2000, 3  # bytes of complaints to quote; names of left-out files to tell
LONGEST_LINE = 1 << 17  # bytes: a path with every byte quoted, and what tar says about it
# What tar may not make without a privilege. It quotes names, so each complaint is one line.
LEFT_OUT = {
    "device nodes": re.compile(r"\S*tar: (.*): Cannot mknod: Operation not permitted"),
    "extended attributes": re.compile(
        r"\S*tar: setxattrat: Cannot set '.*' extended attribute for file '(.*)': "
        r"(?:Operation not permitted|Operation not supported|Invalid argument)"
    ),
}
HARMLESS = re.compile(
    r"block \d+: \*\* Block of NULs \*\*"  # the end of the archive
    r"|\S*tar: Exiting with failure status due to previous errors"
)
PLACE = re.compile(r"^(block \d+: )?/\S*/(?=\w+: )")  # where a program lies in its jail
IGZIP, NO_NAME = "igzip: ", "(null)"  # what that calls its standard input
NO_END = re.compile(r"block \d+: \*\* End of File \*\*")


@define
class Complaints:
    """What one tar has said, of which a bounded part is quoted."""

    left_out: dict[str, dict[str, Any]] = field(factory=dict)  # kind: {"count", "names"}
    said: str = ""  # the complaints, quoted, each once
    lacks_end: bool = False  # whether the archive has no end mark
    _rest: bytes = b""  # an unfinished line

    def feed(self, data: bytes) -> None:
        """Take what tar has written."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._sort(line.decode(errors="replace"))
        if len(self._rest) > LONGEST_LINE:
            self.close()

    def close(self) -> None:
        """Tar has ended: take the unfinished line."""
        rest, self._rest = self._rest, b""
        if rest:
            self._sort(rest.decode(errors="replace"))

    def _sort(self, line: str) -> None:
        for kind, pattern in LEFT_OUT.items():
            match = pattern.fullmatch(line)
            if match:
                self._leave_out(kind, match[1])
                return
        if NO_END.fullmatch(line):
            self.lacks_end = True
        elif not HARMLESS.fullmatch(line):
            words = PLACE.sub(r"\1", line)
            self._complain(words.replace(NO_NAME, "stdin") if words.startswith(IGZIP) else words)

    def _leave_out(self, kind: str, name: str) -> None:
        left = self.left_out.setdefault(kind, {"count": 0, "names": []})
        left["count"] += 1
        if len(left["names"]) < NAMED:
            left["names"].append(name)

    def _complain(self, line: str) -> None:
        if len(self.said) < KEPT and line not in self.said.split("; "):
            self.said = f"{self.said}; {line}".removeprefix("; ")[:KEPT]
