"""Nodes of a swarm: how they stand, and what is to run there."""

import json
import re
from argparse import ArgumentTypeError, Namespace
from typing import TYPE_CHECKING

from txcontain.cli.command import JSON, Argument, Command
from txcontain.cli.screen import show_table
from txcontain.cli.words import plain

if TYPE_CHECKING:
    from txcontain.cli.client import Client

NODE = {
    "node": str,
    "id": str,
    "address": str,
    "state": str,
    "availability": str,
    "role": str,
    "leader": bool,
    "instances": int,
}


async def ls(client: "Client", arguments: Namespace) -> int:
    """Print the nodes."""
    told = await client.ask("GET", "/nodes", shape={"nodes": [NODE]})
    if getattr(arguments, "json", False):
        for one in told["nodes"]:
            print(json.dumps(one))
        return 0
    rows = [["NODE", "STATE", "AVAILABILITY", "ROLE", "ADDRESS", "INSTANCES", "LABELS"]]
    for one in told["nodes"]:
        role = "leader" if one["leader"] else one["role"]
        labels = ", ".join(f"{name}={text}" for name, text in one.get("labels", {}).items()) or "-"
        start = [one["node"], one["state"], one["availability"], role, one["address"]]
        rows.append([*start, str(one["instances"]), labels])
    show_table(rows)
    return 0


async def drain(client: "Client", arguments: Namespace) -> int:
    """Have nothing run on nodes; print the name of each."""
    return await ask_of_each(client, arguments.nodes, "drain")


async def activate(client: "Client", arguments: Namespace) -> int:
    """Let instances run on nodes again; print the name of each."""
    return await ask_of_each(client, arguments.nodes, "activate")


async def ask_of_each(client: "Client", nodes: "list[str]", verb: str) -> int:
    """Ask something of each node in turn."""
    for node in nodes:
        await client.ask("POST", f"/nodes/{node}/{verb}")
        print(plain(node))
    return 0


async def label(client: "Client", arguments: Namespace) -> int:
    """Give a node labels, or take some away."""
    labels = dict(arguments.labels)
    await client.ask("POST", f"/nodes/{arguments.node}/labels", json={"labels": labels})
    return 0


def node_name(text: str) -> str:
    """Return an argument that names a node.

    :raises ArgumentTypeError: if none can have this name
    """
    if not re.fullmatch("[A-Za-z0-9][A-Za-z0-9._-]{0,252}", text):
        raise ArgumentTypeError(f"{text!r} names no node: `txcontain nodes` shows them")
    return text


def label_of(text: str) -> "tuple[str, str | None]":
    """Return an argument NAME=VALUE, or NAME- for one that is taken away, as both.

    :raises ArgumentTypeError: if it is neither
    """
    name, equals, value = text.partition("=")
    if name and equals:
        return name, value
    if text.endswith("-") and len(text) > 1:
        return text[:-1], None
    raise ArgumentTypeError(f"write NAME=VALUE, or NAME- to take a label away, not {text!r}")


NODES = Argument("nodes", metavar="NODE", nargs="+", type=node_name, help="its name, or its id")
COMMANDS = (
    Command(
        "nodes",
        "show the nodes of a swarm, and say what is to run there",
        ls,
        aliases=("node",),
        commands=(
            Command(
                "ls",
                "show the nodes, and how they stand",
                ls,
                (JSON,),
            ),
            Command(
                "drain", "have nothing run on nodes: what does moves to others", drain, (NODES,)
            ),
            Command("activate", "let instances run on nodes again", activate, (NODES,)),
            Command(
                "label",
                "give a node labels, which placements go by",
                label,
                (
                    Argument("node", metavar="NODE", type=node_name, help="its name, or its id"),
                    Argument(
                        "labels",
                        metavar="NAME=VALUE",
                        nargs="+",
                        type=label_of,
                        help="a label; NAME- takes it away",
                    ),
                ),
            ),
        ),
    ),
)
