"""Commands that draw an instance: as a tree, as a card, beside another process, and in time."""

from argparse import Namespace
from html import escape
from typing import TYPE_CHECKING, NamedTuple

from txcontain.cli.command import INSTANCE, Argument, Command
from txcontain.cli.errors import CliError
from txcontain.cli.screen import show_table
from txcontain.cli.words import one_line, size

if TYPE_CHECKING:
    from txcontain.cli.client import Client, Json

ISOLATION = {
    "namespaces": dict,
    "cgroups": [{"controllers": str, "path": str}],
    "mounts": [{"target": str, "type": str, "source": str, "options": [str]}],
    "more": int,
}
PROCESS = {"pid": int, "host_pid": int, "host_parent": int, "memory": int, "command": str}
WALL = {"name": str, "purpose": str, "weight": int, "test": str, "key": str, "holds": bool}
CARD = {"walls": [WALL], "exposure": (int, float), "word": str}
COMPARED = {"to": str, "walls": [{"wall": str, "one": str, "other": str, "same": bool}]}
NOTEWORTHY = ("ro", "nosuid", "nodev", "noexec")  # of a mount's options
# The parts of a start, in the order in which they come.
PARTS = {
    "http": "the request is read",
    "manager": "the manager finds the image, a name, an init",
    "steps": "the init carries out the plan",
    "exec": "the init becomes the program",
    "record": "it is written down",
}
STEP = "- "  # what the name of a step begins with
SIGNS = {"part": "█", "step": "▒", "advance": "░"}
WIDTH, ROW, LABELS = 40, 18, 340  # of the bars, in characters; of SVG, in pixels
COLOURS = {"part": "#4878a8", "step": "#6aa84f", "advance": "#b7b7b7"}


class Node(NamedTuple):
    """A line of a tree, and what is below it."""

    text: str
    below: "list[Node]"


class Bar(NamedTuple):
    """When something was, in seconds."""

    label: str
    begin: float
    end: float
    kind: str  # of COLOURS


async def tree(client: "Client", arguments: Namespace) -> int:
    """Print an instance's namespaces, mounts, cgroups and processes as one tree."""
    from txcontain.cli.client import quoted

    path = f"/instances/{quoted(arguments.instance)}"
    held = await client.ask("GET", f"{path}/isolation", shape=ISOLATION)
    ran = await client.ask("GET", f"{path}/top", shape={"processes": [PROCESS], "more": int})
    print("\n".join(drawn(tree_of(arguments.instance, held, ran))))
    return 0


def tree_of(name: str, held: "Json", ran: "Json") -> Node:
    """Return the tree of an instance, with what it shares with the host."""
    namespaces = [
        Node(f"{kind}: {space_of(one)}", []) for kind, one in sorted(held["namespaces"].items())
    ]
    groups: dict[str, list[str]] = {}
    for one in held["cgroups"]:
        groups.setdefault(one["path"], []).append(one["controllers"] or "version 2")
    return Node(
        name,
        [
            Node("namespaces", namespaces),
            Node("mounts", [*mounts_of(held["mounts"]), *more(held["more"])]),
            Node("cgroups", [Node(f"{path}: {', '.join(of)}", []) for path, of in groups.items()]),
            Node("processes", [*processes_of(ran["processes"]), *more(ran["more"])]),
        ],
    )


def space_of(one: "Json") -> str:
    """Return whose a namespace is."""
    return f"{one['id']}, the host's is {one['host']}" if one["own"] else f"{one['id']}, the host's"


def mounts_of(mounts: "list[Json]") -> list[Node]:
    """Return mounts, each below the one on which it is; those above come first."""
    top: list[Node] = []
    nodes: dict[str, Node] = {}
    for mount in mounts:
        options = ",".join(one for one in NOTEWORTHY if one in mount["options"])
        target = mount["target"]
        node = Node(f"{target} {mount['type']} {options}".rstrip(), [])
        above = [one for one in nodes if f"{target}/".startswith(f"{one.rstrip('/')}/")]
        (nodes[max(above, key=len)].below if above else top).append(node)
        nodes[target] = node
    return top


def processes_of(processes: "list[Json]") -> list[Node]:
    """Return processes, each below the one that started it."""
    nodes = {
        one["host_pid"]: Node(
            f"{one['pid']} (host: {one['host_pid']}) {one['command']}, {size(one['memory'])}", []
        )
        for one in processes
    }
    top: list[Node] = []
    for one in processes:
        above = nodes.get(one["host_parent"])
        (above.below if above else top).append(nodes[one["host_pid"]])
    return top


def more(number: int) -> list[Node]:
    """Return the line that says how many are left out."""
    return [Node(f"and {number} more", [])] if number else []


def drawn(node: Node, first: str = "", rest: str = "") -> list[str]:
    """Return the lines of a tree.

    :param first: what is before its first line
    :param rest: what is before the others
    """
    lines = [first + one_line(node.text)]
    for number, one in enumerate(node.below, 1):
        is_last = number == len(node.below)
        joint, above = ("└─ ", "   ") if is_last else ("├─ ", "│  ")
        lines += drawn(one, rest + joint, rest + above)
    return lines


async def card(client: "Client", arguments: Namespace) -> int:
    """Print which walls hold an instance, with what is missing."""
    from txcontain.cli.client import quoted

    told = await client.ask("GET", f"/instances/{quoted(arguments.instance)}/card", shape=CARD)
    rows = [["", "WALL", "WHAT IT IS FOR", "EXPOSURE", "TEST"]]
    whole = sum(wall["weight"] for wall in told["walls"])
    for wall in told["walls"]:
        lack = "" if wall["holds"] else f"{10 * wall['weight'] / whole:.1f}"
        rows.append(
            ["✓" if wall["holds"] else "✗", wall["name"], wall["purpose"], lack, wall["test"]]
        )
    show_table(rows)
    print(f"\nExposure of the host: {told['exposure']:.1f} of 10, {one_line(told['word'])}")
    for wall in told["walls"]:
        if wall["key"] and not wall["holds"]:
            print(f"  {one_line(wall['name'])}: {one_line(wall['key'])}")
    return 0


async def compare(client: "Client", arguments: Namespace) -> int:
    """Print what holds an instance and another process, wall by wall."""
    from txcontain.cli.client import quoted

    path = f"/instances/{quoted(arguments.instance)}/compare"
    told = await client.ask("GET", path, params={"to": arguments.to}, shape=COMPARED)
    rows = [["WALL", "", arguments.instance, told["to"]]]
    for wall in told["walls"]:
        rows.append([wall["wall"], "same" if wall["same"] else "apart", wall["one"], wall["other"]])
    show_table(rows)
    return 0


async def timeline(client: "Client", arguments: Namespace) -> int:
    """Print where the time of an instance's launch went."""
    bars = bars_of(await client.inspect(arguments.instance))
    if not any(bar.end > bar.begin for bar in bars):
        raise CliError("Nothing is known of the time of its launch: it has not come so far.")
    if arguments.svg:
        print(svg_of(arguments.instance, bars))
        return 0
    first, last = min(bar.begin for bar in bars), max(bar.end for bar in bars)
    scale = WIDTH / (last - first)
    rows = [["WHAT", "MS", f"{1000 * (last - first):.1f} MS IN ALL"]]
    for bar in bars:
        begin = int((bar.begin - first) * scale)
        line = " " * begin + SIGNS[bar.kind] * max(round((bar.end - bar.begin) * scale), 1)
        rows.append([bar.label, f"{1000 * (bar.end - bar.begin):.2f}", line])
    show_table(rows)
    return 0


def bars_of(told: "Json") -> list[Bar]:
    """Return the parts of a start, with the steps of the plan in their place.

    The steps that an init had carried out before are before the beginning.
    """
    steps = [(one["op"], one["seconds"] or 0.0) for one in told["plan"]]
    count = told["in_advance"]
    early = sum(seconds for _, seconds in steps[:count])
    bars, now = _in_turn(steps[:count], -early, "advance")
    for part, seconds in told["phases"].items():
        bars.append(Bar(PARTS.get(part, part), now, now + seconds, "part"))
        if part == "steps":
            bars += _in_turn(steps[count:], now, "step")[0]
        now += seconds
    return bars


def _in_turn(steps: list[tuple[str, float]], now: float, kind: str) -> tuple[list[Bar], float]:
    """Return one bar after the other, and when the last ends; a run of one op is one bar."""
    bars: list[Bar] = []
    for op, seconds in steps:
        label = STEP + op
        if bars and bars[-1].label == label:
            bars[-1] = bars[-1]._replace(end=now + seconds)
        else:
            bars.append(Bar(label, now, now + seconds, kind))
        now += seconds
    return bars, now


def svg_of(name: str, bars: list[Bar]) -> str:
    """Return the bars as a picture."""
    first, last = min(bar.begin for bar in bars), max(bar.end for bar in bars)
    scale = 600 / (last - first)
    height = ROW * (len(bars) + 2)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{LABELS + 720}" height="{height}"'
        ' font-family="sans-serif" font-size="12">',
        f'<text x="8" y="{ROW - 4}" font-weight="bold">{escape(name)}: '
        f"{1000 * (last - first):.1f} ms</text>",
    ]
    for number, bar in enumerate(bars, 1):
        y, x = number * ROW, LABELS + (bar.begin - first) * scale
        width = max((bar.end - bar.begin) * scale, 1)
        lines += [
            f'<text x="8" y="{y + 13}">{escape(bar.label)}</text>',
            f'<rect x="{x:.1f}" y="{y + 3}" width="{width:.1f}" height="{ROW - 6}"'
            f' fill="{COLOURS[bar.kind]}"/>',
            f'<text x="{x + width + 4:.1f}" y="{y + 13}">{1000 * (bar.end - bar.begin):.2f}</text>',
        ]
    return "\n".join([*lines, "</svg>"])


COMMANDS = (
    Command(
        "tree",
        "show an instance's namespaces, mounts, cgroups and processes as a tree",
        tree,
        (INSTANCE,),
    ),
    Command(
        "card",
        "show which walls hold an instance, by what test, and how exposed the host is",
        card,
        (INSTANCE,),
    ),
    Command(
        "compare",
        "show what holds an instance and another process, wall by wall",
        compare,
        (
            INSTANCE,
            Argument("to", metavar="PID|INSTANCE", help="a process of the host, or an instance"),
        ),
    ),
    Command(
        "timeline",
        "show where the time of an instance's launch went",
        timeline,
        (Argument("--svg", action="store_true", help="as a picture"), INSTANCE),
    ),
)
