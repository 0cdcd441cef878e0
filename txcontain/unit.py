"""The manager as a service of systemd: its unit (systemd.service(5)), from a template."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path

HERE = Path(__file__).parent
TWISTD = ("--nodaemon", "--pidfile=", "containerd-lite")


def unit_of(options: Iterable[str], folders: Iterable[str]) -> str:
    """The unit that runs this program again, with these options, in this folder.

    :param folders: absolute paths that must be mounted before
    """
    run = [os.path.abspath(sys.argv[0]), *TWISTD, *options]
    filled = {
        "@FOLDERS@": " ".join(map(quoted, folders)),
        "@HERE@": os.getcwd().replace("%", "%%"),
        "@RUN@": " ".join(quoted(word).replace("$", "$$") for word in run),
        "@SHUTDOWN@": quoted(str(HERE / "shutdown.sh")).replace("$", "$$"),
    }
    text = (HERE / "unit.service").read_text()
    for mark, value in filled.items():
        text = text.replace(mark, value)
    return text


def quoted(word: str) -> str:
    """A word as systemd reads it as one: % begins a specifier (systemd.syntax(7))."""
    return '"' + word.replace("\\", r"\\").replace('"', r"\"").replace("%", "%%") + '"'
