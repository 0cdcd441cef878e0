"""Options of twistd that take a number, and refuse all else by the option's name."""

from __future__ import annotations

from typing import Any


def number(
    name: str, short: str | None, default: int, what: str, least: int, most: int
) -> list[Any]:
    """A row of ``Options.optParameters``: an option that takes a whole number of this range."""

    def read(text: str) -> int:
        if text.isascii() and text.isdecimal() and least <= int(text[:20]) <= most:
            return int(text)
        raise ValueError(f"--{name} takes a whole number from {least} to {most}, not {text!r}")

    return [name, short, default, what, read]
