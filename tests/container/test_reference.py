"""The names of images."""

from twisted.trial.unittest import SynchronousTestCase

from txcontain.container.reference import HUBS_HOST, Reference, read_reference
from txcontain.errors import InvalidData

DIGEST = "sha256:" + "0123456789abcdef" * 4
FORM = "an image is [REGISTRY/]REPOSITORY[:TAG][@sha256:DIGEST], such as registry:5000/app:1.4"

TAKEN = {
    "debian": Reference("docker.io", "library/debian", "latest"),
    "debian:12": Reference("docker.io", "library/debian", "12"),
    "docker.io/debian": Reference("docker.io", "library/debian", "latest"),
    "index.docker.io/some/app": Reference("docker.io", "some/app", "latest"),
    "some/app": Reference("docker.io", "some/app", "latest"),
    "registry:5000/app:1.4": Reference("registry:5000", "app", "1.4"),
    "registry:5000/app": Reference("registry:5000", "app", "latest"),
    "localhost/a/b-c__d.e": Reference("localhost", "a/b-c__d.e", "latest"),
    "[::1]:5000/app:1": Reference("[::1]:5000", "app", "1"),
    f"ghcr.io/some/app@{DIGEST}": Reference("ghcr.io", "some/app", None, DIGEST),
    f"ghcr.io/some/app:1@{DIGEST}": Reference("ghcr.io", "some/app", "1", DIGEST),
}
REFUSED = (
    (
        "app@sha256:12",
        f"'app@sha256:12' has a digest that is not sha256: and 64 digits from 0 to f → {FORM}",
    ),
    ("app:-1", f"'app:-1' has a tag that can't be one → {FORM}"),
    ("a_b.c/app", f"'a_b.c/app' names a registry that can't be one → {FORM}"),
    ("r:99999/app", f"'r:99999/app' names a registry that can't be one → {FORM}"),
    ("", f"'' is not the name of an image → {FORM}"),
    ("App", f"'App' is not the name of an image → {FORM}"),
    ("../etc", f"'../etc' names a registry that can't be one → {FORM}"),
    ("a//b", f"'a//b' is not the name of an image → {FORM}"),
    ("a b", f"'a b' is not the name of an image → {FORM}"),
    ("file:///etc/passwd", f"'file:///etc/passwd' names a registry that can't be one → {FORM}"),
)


class References(SynchronousTestCase):
    """What a person may write."""

    def test_taken(self) -> None:
        """Each form names the registry, repository, tag and digest that Docker takes it for."""
        for text, wanted in TAKEN.items():
            self.assertEqual(read_reference(text), wanted, text)

    def test_refused(self) -> None:
        """What can't be a name is refused with a sentence."""
        for text, wanted in REFUSED:
            error = self.assertRaises(InvalidData, read_reference, text)
            self.assertEqual(str(error), wanted)

    def test_written_again(self) -> None:
        """What a reference is written as is read as the same one."""
        for reference in TAKEN.values():
            self.assertEqual(read_reference(str(reference)), reference)

    def test_hub(self) -> None:
        """Docker Hub is asked by another name than it has in references."""
        self.assertEqual(read_reference("debian").host, HUBS_HOST)
        self.assertEqual(read_reference("r:5000/debian").host, "r:5000")

    def test_loopback(self) -> None:
        """Only an address of this machine counts as one, never a name that may lead elsewhere."""
        for registry, wanted in {
            "localhost:5000": True,
            "127.0.0.1:5000": True,
            "127.9.9.9:80": True,
            "[::1]:5000": True,
            "localhost.example.org": False,
            "127.0.0.1.example.org": False,
            "10.0.0.1:5000": False,
            "[fe80::1]:5000": False,
        }.items():
            self.assertIs(read_reference(f"{registry}/a").is_loopback, wanted, registry)

    def test_what_to_ask_for(self) -> None:
        """A digest counts more than a tag."""
        self.assertEqual(read_reference("a:1").wanted, "1")
        self.assertEqual(read_reference(f"a:1@{DIGEST}").wanted, DIGEST)
        self.assertEqual(read_reference("a:1").at(DIGEST).wanted, DIGEST)
