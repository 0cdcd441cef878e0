"""Commands about the disk: what takes how much of it, and the removal of what is not needed."""

import json
import sys
from argparse import Namespace
from typing import TYPE_CHECKING

from txcontain.cli.command import Argument, Command
from txcontain.cli.errors import CliError
from txcontain.cli.screen import show_table
from txcontain.cli.words import size

if TYPE_CHECKING:
    from txcontain.cli.client import Client, Json

IMAGE = {"folder": str, "image": str, "bytes": int}
LAYER = {"layer": str, "tarball": str, "bytes": int}
VOLUME = {"volume": str, "bytes": (int, None)}
FOOTPRINT = {"instance": str, "state": str, "bytes": int, "logs": int}
DF = {
    "images": [IMAGE],
    "layers": [{**LAYER, "used": bool}],
    "volumes": [{**VOLUME, "used": bool}],
    "instances": [FOOTPRINT],
    "whole": bool,
}
PRUNED = {"instances": [FOOTPRINT], "layers": [LAYER], "volumes": [VOLUME], "bytes": int}
PATIENCE = 600  # seconds: a disk may be slow, and there may be much to remove


async def df(client: "Client", arguments: Namespace) -> int:
    """Print what takes how much of the disk: sums, or each thing."""
    told = await client.ask("GET", "/df", shape=DF, patience=PATIENCE)
    if arguments.json:
        print(json.dumps(told))
    elif arguments.verbose:
        show_table([["TYPE", "NAME", "SIZE", "IN USE"], *each(told)])
    else:
        show_table([["TYPE", "COUNT", "SIZE", "NOT IN USE"], *sums(told)])
    if not told["whole"]:
        print("There are too many files to count them all: it is more.", file=sys.stderr)
    return 0


def sums(told: "Json") -> list[list[str]]:
    """Return a row for each kind of thing; what is not in use is what prune would remove."""
    instances, layers, volumes = told["instances"], told["layers"], told["volumes"]
    ended = [one for one in instances if one["state"] in ("ended", "failed")]
    unused = [one for one in layers if not one["used"]]
    idle = [one for one in volumes if not one["used"]]
    return [
        ["images", str(len(told["images"])), total(told["images"]), "-"],
        ["layers", str(len(layers)), total(layers), total(unused)],
        ["volumes", str(len(volumes)), total(volumes), total(idle)],
        ["instances", str(len(instances)), total(instances), total(ended)],
        ["their logs", "-", total(instances, "logs"), total(ended, "logs")],
    ]


def each(told: "Json") -> list[list[str]]:
    """Return a row for each thing."""
    rows = [["image", f"{i['folder']}/{i['image']}", size(i["bytes"]), "-"] for i in told["images"]]
    for layer in told["layers"]:
        used = "yes" if layer["used"] else "no"
        rows.append(["layer", named(layer), size(layer["bytes"]), used])
    for one in told["volumes"]:
        used = "yes" if one["used"] else "no"
        rows.append(["volume", one["volume"], size(one["bytes"]), used])
    for one in told["instances"]:
        rows.append(["instance", one["instance"], size(one["bytes"]), one["state"]])
        rows.append(["its logs", one["instance"], size(one["logs"]), ""])
    return rows


def named(layer: "Json") -> str:
    """Return a layer's name, with that of its tarball."""
    return f"{layer['layer'][:12]} of {layer['tarball'] or 'an unknown tarball'}"


def total(things: "Json", key: str = "bytes") -> str:
    """Return how many bytes things take together."""
    return size(sum(one[key] or 0 for one in things))


async def prune(client: "Client", arguments: Namespace) -> int:
    """Say what is not needed any more, ask, and remove it."""
    asked = {"volumes": arguments.volumes}
    would = await removed(client, **asked, dry_run=True)
    rows = [["instance", one["instance"], size(one["bytes"])] for one in would["instances"]]
    rows += [["layer", named(one), size(one["bytes"])] for one in would["layers"]]
    rows += [["volume", one["volume"], size(one["bytes"])] for one in would["volumes"]]
    if not rows:
        print("There is nothing to remove.")
        return 0
    print(f"Not needed any more, {size(would['bytes'])} in all:")
    show_table([["TYPE", "NAME", "SIZE"], *rows])
    if arguments.dry_run or not (arguments.force or is_wanted()):
        return 0
    done = await removed(client, **asked, dry_run=False)
    counts = [f"{kind}: {len(done[kind])}" for kind in ("instances", "layers", "volumes")]
    print(f"Removed {size(done['bytes'])} ({', '.join(counts)}).")
    return 0


async def removed(client: "Client", **asked: bool) -> "Json":
    """Return what a prune has removed, or would remove."""
    return await client.ask("POST", "/prune", json=asked, shape=PRUNED, patience=PATIENCE)


def is_wanted() -> bool:
    """Ask the person at the terminal whether to go on.

    :raises CliError: if there is none
    """
    if not sys.stdin or not sys.stdin.isatty():
        raise CliError("Nothing was removed: there is no terminal to ask at. Give --force.")
    print("Remove it? [y/N] ", end="", flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


COMMANDS = (
    Command(
        "df",
        "show what takes how much of the disk",
        df,
        (
            Argument("-v", "--verbose", action="store_true", help="each thing, not only sums"),
            Argument("--json", action="store_true", help="all of it as a JSON document"),
        ),
    ),
    Command(
        "prune",
        "remove instances that have ended, and layers that nothing uses",
        prune,
        (
            Argument("--dry-run", action="store_true", help="only say what would be removed"),
            Argument("--volumes", action="store_true", help="also volumes that nothing uses"),
            Argument("-f", "--force", action="store_true", help="don't ask"),
        ),
    ),
)
