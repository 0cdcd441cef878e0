"""What several test modules share."""

import functools
import json
import os
import platform
import re
import shutil
import subprocess

from txcontain.spec import from_json

CAP_SYS_ADMIN = 21
OLDEST_KERNEL = (5, 12)


def lacking():
    """What this process lacks of being root on a kernel that is new enough; "" where nothing."""
    with open("/proc/self/status") as file:
        capabilities = int(re.search(r"CapEff:\s*(\w+)", file.read())[1], 16)
    if os.geteuid() != 0 or not capabilities >> CAP_SYS_ADMIN & 1:
        return "needs root, with CAP_SYS_ADMIN"
    if tuple(map(int, re.findall(r"\d+", platform.release())[:2])) < OLDEST_KERNEL:
        return "needs Linux 5.12 or later"
    return ""


def needs_root(test):
    """Decorate a test, or a class of tests, that makes real containers.

    It is skipped where that can't be; in CI (where CI is set) it fails instead.
    """
    reason = lacking()
    if not reason:
        return test
    if not os.environ.get("CI"):
        test.skip = reason
        return test

    def fail(self):
        self.fail(f"{reason}; in CI no test is skipped")

    if isinstance(test, type):
        test.setUp = fail
        return test
    return functools.wraps(test)(fail)


def document(**changes):
    """A small valid config as JSON, with these keys changed; a key set to None is left out."""
    values = {"name": "web", "major": "1", "minor": "01", "base_image": "basefs.tar.gz", **changes}
    return json.dumps({key: value for key, value in values.items() if value is not None}).encode()


def make_spec(**changes):
    """The spec of ``document(**changes)``."""
    return from_json(document(**changes))


def make_layer(folder, **files):
    """A root file system in ``folder`` with a working /bin/sh and these executable files."""
    shell = os.path.realpath("/bin/sh")
    libraries = subprocess.run(["ldd", shell], capture_output=True, text=True, check=True).stdout
    for path in ["/bin/sh", *re.findall(r"/\S+", libraries)]:
        os.makedirs(folder + os.path.dirname(path), exist_ok=True)
        shutil.copy(path, folder + path)
    for name, text in files.items():
        with open(os.path.join(folder, name), "w") as file:
            file.write(text)
            os.chmod(file.fileno(), 0o755)
