"""What an image has a container be, beside its config."""

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from txcontain.container.defaults import Used, read_used, sources, with_defaults
from txcontain.container.spec import Spec, fill_in, from_json
from txcontain.errors import InvalidData

IMAGE = Used(
    "app:1",
    "sha256:" + "0" * 64,
    {
        "command": ["/entry", "one"],
        "startup_env": ["A=image", "B=image"],
        "startup_owner": "nobody",
        "workdir": "/srv",
        "stop_signal": "SIGINT",
        "writable_root": True,
    },
)


def bare(**keys: Any) -> Spec:
    """A config with only these keys, and those that it must have."""
    needed = {"name": "web", "major": "1", "minor": "1", "base_image": "app:1"}
    return from_json(json.dumps({**needed, **keys}).encode())


class Defaults(SynchronousTestCase):
    """The image's word, and the config's."""

    def test_all(self) -> None:
        """Whatever the config does not say is as the image has it."""
        whole = with_defaults(bare(), IMAGE)
        self.assertEqual(whole.command, ("/entry", "one"))
        self.assertEqual(fill_in(whole.startup_env, {}), {"A": "image", "B": "image"})
        self.assertEqual((whole.startup_owner, whole.workdir), ("nobody", "/srv"))
        self.assertEqual((whole.stop_signal, whole.writable_root), (2, True))

    def test_overridden(self) -> None:
        """A key of the config counts more; variables come on top, and see the image's."""
        own = bare(
            command=["x"],
            startup_env="B=mine;C=${A}",
            startup_owner="root",
            workdir="/",
            stop_signal=15,
            writable_root=False,
        )
        whole = with_defaults(own, IMAGE)
        self.assertEqual((whole.command, whole.startup_owner), (("x",), "root"))
        self.assertEqual((whole.workdir, whole.stop_signal, whole.writable_root), ("/", 15, False))
        wanted = {"A": "image", "B": "mine", "C": "image"}
        self.assertEqual(fill_in(whole.startup_env, {}), wanted)

    def test_one_program(self) -> None:
        """A config with a startup script, even none, has no program of the image."""
        for script in ("/run.sh", None):
            whole = with_defaults(bare(startup_script=script), IMAGE)
            self.assertEqual((whole.startup_script, whole.command), (script, ()))

    def test_twice(self) -> None:
        """To apply the defaults again changes nothing, and neither does a tarball."""
        once = with_defaults(bare(startup_env="C=1"), IMAGE)
        self.assertEqual(with_defaults(once, IMAGE), once)
        self.assertEqual(with_defaults(once, None), once)

    def test_sources(self) -> None:
        """For each key it is told where its value comes from."""
        told = sources(bare(startup_env="C=1", workdir="/"), IMAGE)
        self.assertEqual(
            told,
            {
                "command": "image",
                "startup_env": "config and image",
                "startup_owner": "image",
                "workdir": "config",
                "stop_signal": "image",
                "health": "default",
                "writable_root": "image",
                "startup_script": "default",
            },
        )
        self.assertEqual(set(sources(bare(), None).values()), {"default"})

    def test_unusable(self) -> None:
        """What no config can say is refused, by the image's name."""
        bad = Used("app:1", "", {"workdir": "relative"})
        error = self.assertRaises(InvalidData, with_defaults, bare(), bad)
        self.assertEqual(error.chain[0], "the image app:1 can't be run as it says")
        self.assertIn("workdir must be an absolute path", error.chain[1])
        self.assertEqual(with_defaults(bare(workdir="/"), bad).workdir, "/")

    def test_damaged(self) -> None:
        """A damaged record is no image's."""
        self.assertIsNone(read_used(None))
        damaged: tuple[Any, ...] = (7, [], {}, {"name": "a", "digest": "b", "defaults": 7})
        for values in damaged:
            error = self.assertRaises(InvalidData, read_used, values)
            self.assertIn("image must be an object, not", str(error))
