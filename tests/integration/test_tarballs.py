"""What is in a tarball is in the container, entry by entry; what is not is told."""

from __future__ import annotations

import tarfile

from tests.integration.harness import ManagerCase
from tests.integration.tarballs import device, file, folder, link


class RootTests(ManagerCase):
    """A base image's /run and /tmp, which a container has in memory."""

    def test_files(self) -> None:
        """What the image has in them is there, can be written over, and is not changed by that."""
        image = self.image(
            "full.tar", folder("run"), folder("run/lock", 0o1777), file("run/sshd/pid", "7"),
            folder("tmp", 0o1777), file("tmp/seed", "seed"), folder("var"),
            link("var/lock", "/run/lock"),
        )  # fmt: skip
        for _ in range(2):
            for keys in ({}, {"user_namespace": True}, {"startup_owner": "worker"}):
                out = self.inside(
                    "cat /tmp/seed /run/sshd/pid; echo more > /var/lock/x && cat /run/lock/x\n"
                    "rm -f /tmp/seed; echo new > /tmp/new && ls /tmp",
                    base_image=image, **keys,
                )  # fmt: skip
                seed = "new\nseed\n" if keys.get("startup_owner") else "new\n"
                self.assertEqual(out, f"seed7more\n{seed}", keys)

    def test_links(self) -> None:
        """If they are links, what is in memory is where they lead."""
        image = self.image(
            "links.tar", folder("var/tmp"), folder("var/run"), file("var/run/lock/x", "lock"),
            link("tmp", "var/tmp"), link("run", "var/run"),
        )  # fmt: skip
        text = "cat /run/lock/x; echo a > /tmp/a; echo b > /run/b; cat /var/tmp/a /var/run/b"
        for keys in ({}, {"user_namespace": True}, {"writable_root": True}):
            self.assertEqual(self.inside(text, base_image=image, **keys), "locka\nb\n")

    def test_links_to_the_kernels_own(self) -> None:
        """A link to /dev/shm leads there; none makes anything of /proc writable."""
        image = self.image("shm.tar", link("tmp", "dev/shm"), link("run", "proc/sys"))
        out = self.inside(
            "echo a > /tmp/a; cat /dev/shm/a; echo x 2>&1 > /run/kernel/hostname || echo refused",
            base_image=image,
        )
        self.assertTrue(out.startswith("a\n") and out.endswith("refused\n"), out)

    def test_told_once(self) -> None:
        """What was left out is told by the launch that unpacked it, and by each inspection."""
        null = device("lib/udev/devices/null", tarfile.CHRTYPE, 1, 3)
        image = self.image("nodes.tar", null, device("dev/sda", tarfile.BLKTYPE, 8, 0))
        note = ("left out of nodes.tar: 2 device nodes (lib/udev/devices/null, dev/sda); "
                "see docs/images.md")  # fmt: skip
        for notes in ([note], []):
            answer = self.try_to_launch(base_image=image)
            self.assertEqual((answer.status, answer.notes), (200, notes))
            about = self.ask("GET", f"/instances/{answer.json['instance']}").json["left_out"]
            self.assertEqual(about["nodes.tar"]["device nodes"]["count"], 2)
