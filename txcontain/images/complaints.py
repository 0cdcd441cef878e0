"""What tar(1) says while it unpacks: what it had to leave out, and what it complains of.

Its exit status does not tell: it is 0 where a file could not be made as long as it is, or where
the archive ends inside of a header, and 2 where no more than a device node could not be made.
"""

from __future__ import annotations

import re
from typing import Any

from attrs import define, field

KEPT, NAMED = 2000, 3  # bytes of complaints that are quoted; names of what was left out
LONGEST_LINE = 1 << 17  # bytes: a path, every byte of which is quoted, and what tar says of it
# What tar can't make for want of a privilege, and what that is. It quotes names, so that each
# complaint is one line.
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
NO_END = re.compile(r"block \d+: \*\* End of File \*\*")
CUT_SHORT = "it ends without the mark of an end: it was cut short"


@define
class Complaints:
    """All that one tar has said, a bounded part of it word for word."""

    left_out: dict[str, dict[str, Any]] = field(factory=dict)  # kind: {"count", "names"}
    said: str = ""  # what was complained of
    _rest: bytes = b""  # of a line that is not whole yet

    def feed(self, data: bytes) -> None:
        """Take what tar has written."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._sort(line.decode(errors="replace"))
        if len(self._rest) > LONGEST_LINE:
            self.close()

    def close(self) -> None:
        """There is no more."""
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
            self._complain(CUT_SHORT)
        elif not HARMLESS.fullmatch(line):
            self._complain(re.sub(r"^/\S*/(?=\w+: )", "", line))

    def _leave_out(self, kind: str, name: str) -> None:
        left = self.left_out.setdefault(kind, {"count": 0, "names": []})
        left["count"] += 1
        if len(left["names"]) < NAMED:
            left["names"].append(name)

    def _complain(self, line: str) -> None:
        if len(self.said) < KEPT:
            self.said = f"{self.said}\n{line}".strip()[:KEPT]
