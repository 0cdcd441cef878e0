"""Images: load, list, look at, name, remove."""

import json
import os
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING

from txcontain.cli.command import Argument, Command
from txcontain.cli.errors import CliError
from txcontain.cli.progress import with_progress
from txcontain.cli.screen import show_table
from txcontain.cli.volumes import opened
from txcontain.cli.words import age, plain, size

if TYPE_CHECKING:
    from txcontain.cli.client import Client

TAR = ["tar", "--create", "--file=-"]
SHORT = 19  # characters of a digest: sha256: and 12 digits
IMAGE = {
    "digest": str,
    "names": [str],
    "platform": str,
    "created": str,
    "added": (int, float),
    "layers": int,
    "bytes": int,
    "used_by": [str],
}
STEP = {"created": str, "created_by": str, "layer": (str, None), "compressed": int}


async def ls(client: "Client", _: Namespace) -> int:
    """Print a table of the images."""
    rows = [["IMAGE", "DIGEST", "LAYERS", "SIZE", "ADDED", "USED BY"]]
    shape = {"images": [IMAGE]}
    for image in (await client.ask("GET", "/images", shape=shape))["images"]:
        old, users = age(time.time() - image["added"]), ", ".join(image["used_by"]) or "-"
        layers, digest = str(image["layers"]), image["digest"][:SHORT]
        for name in image["names"]:
            rows.append([name, digest, layers, size(image["bytes"]), old, users])
    show_table(rows)
    return 0


async def load(client: "Client", arguments: Namespace) -> int:
    """Load the images of an archive, or of a folder with a layout; print their names."""
    from twisted.web.client import FileBodyProducer

    from txcontain.cli.client import Flow

    with archive(arguments.file) as file:
        params = {"name": arguments.name} if arguments.name else {}
        loaded = await client.ask(
            "PUT",
            "/images",
            params=params,
            data=FileBodyProducer(Flow(file)),
            shape={"images": [IMAGE]},
            patience=None,
        )
    for image in loaded["images"]:
        for name in image["names"]:
            print(plain(name))
    return 0


@contextmanager
def archive(path: str) -> Iterator[IO[bytes]]:
    """Open an archive: a file, - for standard input, or a folder, of which tar(1) makes one.

    :raises CliError: if that does not work
    """
    if path == "-":
        yield sys.stdin.buffer
        return
    if not os.path.isdir(path):
        with opened(path) as file:
            yield file
        return
    with subprocess.Popen([*TAR, f"--directory={path}", "."], stdout=subprocess.PIPE) as tar:
        assert tar.stdout is not None
        yield tar.stdout
    if tar.returncode:
        raise CliError(f"tar could not read {path}.")


async def pull(client: "Client", arguments: Namespace) -> int:
    """Get images from their registries; print the digest of each."""
    for name in arguments.names:
        asked = {"name": name, "insecure": arguments.insecure}
        pulled = client.ask("POST", "/images", json=asked, shape=IMAGE, patience=None)
        image = await with_progress(client, pulled, lines=True)
        print(plain(image["digest"]))
    return 0


async def inspect(client: "Client", arguments: Namespace) -> int:
    """Print all that is known of images."""
    for name in arguments.names:
        told = await client.ask("GET", path_of(name), shape=IMAGE)
        print(plain(json.dumps(told, indent=2, ensure_ascii=False)))
    return 0


async def history(client: "Client", arguments: Namespace) -> int:
    """Print a table of how an image was made, the latest step first."""
    path, shape = f"{path_of(arguments.name)}/history", {"history": [STEP]}
    rows = [["LAYER", "SIZE", "CREATED", "BY"]]
    for step in (await client.ask("GET", path, shape=shape))["history"]:
        layer = step["layer"][:SHORT] if step["layer"] else "-"
        rows.append([layer, size(step["compressed"]), step["created"][:SHORT], step["created_by"]])
    show_table(rows)
    return 0


async def tag(client: "Client", arguments: Namespace) -> int:
    """Give an image another name."""
    await client.ask("POST", f"{path_of(arguments.name)}/tag", json={"name": arguments.other})
    return 0


async def rm(client: "Client", arguments: Namespace) -> int:
    """Remove names of images, and images with their last name; print the names."""
    for name in arguments.names:
        removed = await client.ask("DELETE", path_of(name), shape={"removed": [str]})
        print(plain("\n".join(removed["removed"])))
    return 0


def path_of(name: str) -> str:
    """Return the path of an image."""
    from txcontain.cli.client import quoted

    return f"/images/{quoted(name)}"


NAMED = "its name, or the beginning of its digest"
NAMES = Argument("names", metavar="IMAGE", nargs="+", help=NAMED)
NAME = Argument("name", metavar="IMAGE", help=NAMED)
COMMANDS = (
    Command(
        "image",
        "show the images, load or pull some, name and remove them",
        ls,
        aliases=("images",),
        commands=(
            Command("ls", "show the images, and who uses them", ls),
            Command(
                "load",
                "load the images of an archive (OCI, docker save)",
                load,
                (
                    Argument(
                        "file",
                        metavar="FILE",
                        help="an archive, a folder with an OCI layout, or - for standard input",
                    ),
                    Argument("--name", metavar="REF", help="what to call the image"),
                ),
            ),
            Command(
                "pull",
                "get images from their registries",
                pull,
                (
                    Argument("names", metavar="REF", nargs="+", help="such as registry:5000/app:1"),
                    Argument(
                        "--insecure",
                        action="store_true",
                        help="over plain HTTP, from a registry at a loopback address",
                    ),
                ),
            ),
            Command("inspect", "show all that is known of images", inspect, (NAMES,)),
            Command("history", "show how an image was made", history, (NAME,)),
            Command(
                "tag",
                "give an image another name",
                tag,
                (NAME, Argument("other", metavar="REF", help="the other name")),
            ),
            Command("rm", "remove names of images, and images", rm, (NAMES,)),
        ),
    ),
)
