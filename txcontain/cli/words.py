"""How the commands show what they print."""

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from txcontain.cli.client import Json

GROUPS = ("config:", "service:")  # begin what stands for all instances of a config or a service


def plain(text: str) -> str:
    """Return a text with control characters escaped: a container may have written it."""
    return "".join(c if c.isprintable() or c in "\n\t" else f"\\x{ord(c):02x}" for c in text)


def one_line(text: str) -> str:
    """Return a text of several lines as one."""
    return plain("; ".join(line.strip() for line in text.splitlines()))


def table(rows: list[list[str]]) -> str:
    """Return rows of cells as lines, the columns aligned."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, cells, widths)).rstrip() for cells in rows)


def config(record: "Json") -> str:
    """Return the name of the config that an instance was launched from."""
    return f"{record['name']}-{record['major']}-{record['minor']}.cfg"


def moment(seconds: float) -> str:
    """Return a unix time as logs have it: RFC 3339, in UTC."""
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{whole}.{int(seconds * 1000) % 1000:03}Z"


def age(seconds: float) -> str:
    """Return a duration in its largest unit: 59s, 3m, 2h, 12d."""
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{int(seconds / size)}{unit}"
    return f"{max(int(seconds), 0)}s"


def size(number: int | None) -> str:
    """Return a number of bytes in its largest unit: 512B, 1.5M, 2.0G."""
    if number is None:
        return "-"
    for unit, scale in (("G", 1 << 30), ("M", 1 << 20), ("K", 1 << 10)):
        if number >= scale:
            return f"{number / scale:.1f}{unit}"
    return f"{number}B"
