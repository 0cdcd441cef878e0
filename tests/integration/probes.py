"""Python scripts that run in a container, try something there, and tell what came of it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

from tests.integration.harness import ManagerCase
from tests.integration.tarballs import Member, file, folder, link

PYTHON = os.path.realpath(sys.executable)
MODULES = "ctypes errno fcntl json mmap os resource signal socket stat struct sys time"
PRELUDE = f"""#!/bin/python3
import {", ".join(MODULES.split())}

libc = ctypes.CDLL(None, use_errno=True)

def attempt(function, *arguments):
    "The name of the error that the kernel answers, or 'done'."
    try:
        function(*arguments)
        return "done"
    except OSError as error:
        return errno.errorcode[error.errno]

def system_call(number, *arguments):
    "The same of a system call, by its number."
    result = libc.syscall(number, *map(ctypes.c_long, arguments))
    return "done" if result >= 0 else errno.errorcode[ctypes.get_errno()]

def in_child(function):
    "The exit status of a child that calls the function, or minus the signal that ended it."
    child = os.fork()
    if child == 0:
        os._exit(function() or 0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

def how_many(function):
    "How often the kernel lets a function have something more."
    count = 0
    while function(count) >= 0:
        count += 1
    return count

def fill(path):
    "How many bytes a file takes, up to 64 MiB, and the name of the error at the end of them."
    written = 0
    try:
        with open(path, "wb", buffering=0) as file:
            while written < 1 << 26:
                written += file.write(bytes(1 << 16))
    except OSError as error:
        return written, errno.errorcode[error.errno]

def tell(**findings):
    print(json.dumps(findings), flush=True)

"""


@cache
def python_image() -> tuple[Member, ...]:
    """The interpreter that runs this test, with what those modules are made of."""
    look = f"import sys, {', '.join(MODULES.split())}; print(*[m.__file__ for m in "
    look += "sys.modules.values() if getattr(m, '__file__', None)])"
    modules = _output(PYTHON, "-I", "-S", "-c", look).split()
    codecs = [str(path) for path in Path(os.__file__).parent.glob("encodings/*.py")]
    linked = _output("ldd", PYTHON, *[path for path in modules if path.endswith(".so")])
    libraries = re.findall(r"(/\S+) \(0x", linked)
    paths = dict.fromkeys([PYTHON, *modules, *codecs, *libraries])
    folders = {str(above) for path in paths for above in Path(path[1:]).parents} - {"."}
    return (
        *(folder(path) for path in sorted(folders)),
        *(file(path[1:], Path(path).read_bytes(), 0o755) for path in paths),
        link("bin/python3", PYTHON),
    )


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True).stdout


# Takes all that it can of what the kernel counts for a user as a whole, and tells how much it was.
TAKE_ALL = """
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGRTMIN])
me = os.getpid()
tell(queues=how_many(lambda n: libc.mq_open(b"/q%d" % n, os.O_CREAT | os.O_RDWR, 0o600, None)),
     watches=how_many(lambda n: libc.inotify_init1(0)),
     signals=how_many(lambda n: libc.sigqueue(me, signal.SIGRTMIN, None)))
signal.pause()
"""


class ProbeCase(ManagerCase):
    """A test whose containers run Python."""

    def image(self, name: str, *members: Member) -> str:
        """Make a base image: the small one, Python, and these members on top of it."""
        return super().image(name, *python_image(), *members)

    def probe(self, text: str, **keys: Any) -> dict[str, Any]:
        """What a script tells from inside of a container, where it is run after PRELUDE."""
        return self.told_by(self.start_probe(text, **keys))

    def start_probe(self, text: str, **keys: Any) -> str:
        """Run a script in a container, after PRELUDE; return the instance's name."""
        return self.launch(**self.job(PRELUDE + text, **keys))

    def told_by(self, instance: str) -> dict[str, Any]:
        """What an instance tells, once it has ended."""
        said = self.output_of(instance)
        self.assertTrue(said, self.written(instance, "stderr"))
        return json.loads(said)

    def written(self, instance: str, stream: str = "stdout") -> str:
        """What an instance has written so far."""
        answer = self.ask("GET", f"/instances/{instance}/logs?stream={stream}")
        return answer.body.decode(errors="replace")
