"""Tables, as they fit a terminal; elsewhere they are plain and whole, for programs."""

import os
import shutil
import sys

from txcontain.cli.words import one_line, table

BOLD, RED, GREEN, YELLOW, FAINT = "1", "31", "32", "33", "2"  # ECMA-48, 8.3.117 (SGR)
COLOURS = {
    "running": GREEN,
    "starting": YELLOW,
    "waiting": YELLOW,
    "stopping": YELLOW,
    "paused": YELLOW,
    "stopped": FAINT,
    "ended": FAINT,
    "failed": RED,
}
CUT = "…"


def show_table(rows: list[list[str]]) -> None:
    """Print rows of cells, a line each; on a terminal cut to its width, and with some colour."""
    rows = [[one_line(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        print("\n".join(screen_lines(rows, shutil.get_terminal_size().columns, has_colour())))
    else:
        print(table(rows))


def has_colour() -> bool:
    """Say whether colours are wanted (no-color.org), and known to the terminal."""
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def screen_lines(rows: list[list[str]], width: int, colour: bool) -> list[str]:
    """Return the lines of a table, none of them longer than `width`; the first row is its head."""
    head, *lines = [cut(line, width) for line in table(rows).splitlines()]
    if not colour:
        return [head, *lines]
    return [painted(head, BOLD), *map(coloured, lines, rows[1:])]


def cut(line: str, width: int) -> str:
    """Return a line, cut off if it is longer."""
    return line if len(line) <= width else line[: max(width - 1, 0)] + CUT


def coloured(line: str, cells: list[str]) -> str:
    """Return a table's line, with the cell that is a state in its colour."""
    for word in cells[1:]:  # the first one is a name
        before, found, after = line.partition(f"  {word}") if word in COLOURS else (line, "", "")
        if found:
            return f"{before}  {painted(word, COLOURS[word])}{after}"
    return line


def painted(text: str, how: str) -> str:
    """Return a text that a terminal shows in this way."""
    return f"\x1b[{how}m{text}\x1b[m"
