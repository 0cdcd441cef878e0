"""What is exported: a config, and what its image and the manager know that it does not say."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

from attrs import frozen

from txcontain.container.plan import environment_of
from txcontain.container.small_files import SmallFile
from txcontain.container.spec import Mount, Spec, fill_in

LONGEST_LABEL = 63  # characters of a name in Kubernetes (RFC 1123)


@frozen
class Account:
    """Who someone is in an image."""

    uid: int
    gid: int
    name: str
    home: str


ROOT = Account(0, 0, "root", "/root")


@frozen
class Subject:
    """A config that is exported."""

    spec: Spec
    image: str  # what its image is called
    accounts: Mapping[str, Account] = {}  # by USER or USER:GROUP, as the config names them
    contents: Mapping[str, bytes] = {}  # of the files in mountables/ that its ``files`` name
    covered: Sequence[str] = ()  # folders in memory in which the image has files
    left_out: Sequence[str] = ()  # sentences on what of its tarballs is in no layer

    @property
    def user(self) -> Account:
        """Who runs its program."""
        return self.account(self.spec.startup_owner)

    @property
    def user_in_image(self) -> str:
        """The same as Docker reads it: by name, if that is known, so that all groups are there."""
        owner, user = self.spec.startup_owner, self.user
        if ":" in owner:
            return owner
        return user.name if user.uid and not user.name.isdecimal() else f"{user.uid}:{user.gid}"

    def account(self, owner: str) -> Account:
        """Who a config means; root if it is not known."""
        return self.accounts.get(owner, ROOT)

    @property
    def program(self) -> list[str]:
        """What PID 1 runs, and its arguments; nothing if it idles."""
        spec = self.spec
        return list(spec.command) or ([spec.startup_script] if spec.startup_script else [])

    @property
    def environment(self) -> dict[str, str]:
        """The variables of its program."""
        user = {"HOME": self.user.home, "USER": self.user.name}
        return fill_in(environment_of(self.spec), user)

    @property
    def memory_and_swap(self) -> int | None:
        """Bytes of both as Docker counts them: -1 for any swap; without a limit, Docker has one."""
        limits = self.spec.limits
        if limits.memory is None:
            return None
        return -1 if limits.swap is None else limits.memory_and_swap

    def content(self, file: SmallFile) -> bytes:
        """What is in one of its small files."""
        return self.contents.get(file.source, b"") if file.source else file.content.encode()

    @property
    def read_only(self) -> bool:
        """Whether nothing of its image is to be written to, beside mounts."""
        return not self.spec.writable_root

    @property
    def written_mounts(self) -> list[str]:
        """Where tarballs are that each instance writes to, and does not see of others."""
        return [mount.target for mount in self.spec.mounts if mount.writable]


def owners_of(spec: Spec) -> list[str]:
    """All that a config names as USER or USER:GROUP, each once."""
    small = [file.owner for file in spec.files]
    small += [secret.owner for secret in spec.secrets if secret.owner]
    return list(dict.fromkeys([spec.startup_owner, *small]))


def in_order(spec: Spec) -> list[Mount]:
    """The mounts of a config, each before those below it, as a launch makes them."""
    return sorted(spec.mounts, key=lambda mount: mount.target.count("/"))


def image_of(spec: Spec) -> str:
    """What a config's image is called, unless someone says otherwise: web:1-01."""
    parts = re.findall("[a-z0-9]+", spec.name.lower()) or ["image"]
    return f"{'-'.join(parts)}:{spec.major}-{spec.minor}"


def label(text: str) -> str:
    """A text as a name in Kubernetes: letters, digits and '-' (RFC 1123)."""
    name = "-".join(re.findall("[a-z0-9]+", text.lower()))[:LONGEST_LABEL].strip("-")
    return name or "unnamed"


def key_for(number: int, path: str) -> str:
    """A file's key in a ConfigMap, by its number there."""
    return f"{number}-{re.sub('[^A-Za-z0-9._-]', '_', PurePosixPath(path).name)[:200]}"
