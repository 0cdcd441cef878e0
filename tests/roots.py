"""Whole roots of Debian's releases, fetched: what is in them is in the container."""

from __future__ import annotations

import os

from tests.integration.test_tarballs import TarballCase
from tests.matrix import image

RELEASES = ("bookworm", "trixie")  # Debian 12 and 13


class RootsTests(TarballCase):
    """Roots that mmdebstrap makes. They are kept in .matrix, as those of the matrix are."""

    def setUp(self) -> None:
        self.roots = {release: image(release) for release in RELEASES}
        super().setUp()  # from now on there is no network

    def test_same(self) -> None:
        """The layer of each is what root's tar makes of it in a chroot, and programs of it run."""
        for release, root in self.roots.items():
            for folder in ("base_images", "mountables"):
                os.symlink(root, self.folder / folder / root.name)
            self.assertGreater(len(self.compare(self.folder / "mountables" / root.name)), 2000)
            said = self.inside(". /etc/os-release; echo $VERSION_CODENAME", base_image=root.name)
            self.assertEqual(said, f"{release}\n")
