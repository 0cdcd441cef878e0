"""The system calls that Python has no function for."""

import sys

from tests.fakes import make_folder
from tests.host.children import ChildrenCase
from txcontain.host.syscalls import flush_disk


class SystemCalls(ChildrenCase):
    """What they do to real processes and disks."""

    def test_flush_disk(self) -> None:
        """A disk is flushed by any of its folders; a missing folder is an error."""
        flush_disk(make_folder(self))
        self.assertRaises(FileNotFoundError, flush_disk, self.mktemp())

    def test_prompt(self) -> None:
        """A prompt thread keeps its priority, and does not pass on its promptness."""
        script = """
import os
from txcontain.host.syscalls import be_prompt
os.setpriority(os.PRIO_PROCESS, 0, 19)
be_prompt()
scheduler = os.sched_getscheduler(0)
print(scheduler & os.SCHED_RESET_ON_FORK > 0, os.nice(0), flush=True)
if os.fork() == 0:
    print(os.sched_getscheduler(0) == os.SCHED_OTHER, os.nice(0), flush=True)
else:
    os.wait()
"""
        child = self.start(sys.executable, "-c", script)
        self.assertEqual(child.communicate()[0].split(), [b"True", b"19"] * 2)
