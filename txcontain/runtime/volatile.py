"""What a power cut may have damaged: the data of overlays that are mounted ``volatile``.

The kernel marks such an overlay, and never mounts it again while the mark is there
(Documentation/filesystems/overlayfs.rst, "Volatile mount"). After a clean end, the mark may go if
the data is on the disk, or if the machine has not been down since. All functions here may wait for
the disk.
"""

from __future__ import annotations

import contextlib
import os
import shutil

from txcontain.container.plan import Plan
from txcontain.host.syscalls import flush_disk


def is_marked(plan: Plan, folder: str) -> bool:
    """Whether an instance with this plan and folder has data that may not be on the disk."""
    return bool(_marks(plan, folder))


def settle(plan: Plan, folder: str) -> bool:
    """Write that data to the disk, and remove the marks. Returns whether there was any.

    Raises OSError; then the marks are still there.
    """
    if not is_marked(plan, folder):
        return False
    flush_disk(folder)
    unmark(plan, folder)
    return True


def unmark(plan: Plan, folder: str) -> None:
    """Remove the marks. Raises OSError."""
    for mark in _marks(plan, folder):
        with contextlib.suppress(FileNotFoundError):  # another request does the same
            shutil.rmtree(mark)


def _marks(plan: Plan, folder: str) -> list[str]:
    works = [arguments["work"] for _, arguments in plan if arguments.get("volatile")]
    marks = [f"{work}/work/incompat" for work in works if work.startswith(f"{folder}/")]
    return [mark for mark in marks if os.path.lexists(mark)]
