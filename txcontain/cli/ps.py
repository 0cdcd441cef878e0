"""The command that shows the instances: which of them, and what of each."""

import json
import re
import time
from argparse import ArgumentTypeError, Namespace
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from txcontain.cli.command import JSON, QUIET, Argument, Command, instance_name
from txcontain.cli.screen import show_table
from txcontain.cli.words import age, config, one_line

if TYPE_CHECKING:
    from txcontain.cli.client import Client, Json

AT_REST = ("ended", "failed", "stopped")  # states that only -a shows
NODE = "Node"  # a column, if there are many hosts
FIELD = re.compile(r"\{\{ *\.(\w+) *\}\}")
ESCAPES = {r"\t": "\t", r"\n": "\n"}  # in a template


def state(record: "Json") -> str:
    """Return the state of an instance, in a word."""
    return "paused" if record.get("paused") else str(record["state"])


def is_ready(record: "Json") -> str:
    """Return whether an instance listens on its PORT: yes, no, or - if it has none, or rests."""
    if record.get("port") is None or record["state"] in AT_REST:
        return "-"
    return "yes" if record.get("ready") else "no"


def health(record: "Json") -> str:
    """Return what the checks of an instance say; - if it has none, or rests."""
    return str((record["state"] not in AT_REST and record.get("health")) or "-")


def ports(record: "Json") -> str:
    """Return the ports of the host that an instance takes; none while it rests."""
    taken = record.get("ports") if record["state"] not in AT_REST else None
    return ", ".join(taken or "-")


# The columns, and the fields of a template.
COLUMNS: "dict[str, Callable[[Json], str]]" = {
    "Instance": lambda record: record["instance"],
    "Config": config,
    "State": state,
    "Ready": is_ready,
    "Health": health,
    "Age": lambda record: age(time.time() - record["since"]),
    NODE: lambda record: record.get("node") or "-",
    "Pid": lambda record: str(record["pid"] or "-"),
    "Ports": ports,
    "Address": lambda record: record.get("address") or "-",
    "Restarts": lambda record: str(record["restarts"]),
    "Exit": lambda record: record["exit"]["reason"] if record["exit"] else "-",
}


def versions(record: "Json") -> tuple[str, ...]:
    """Return the ways to write an instance's config: NAME, NAME-MAJOR, NAME-MAJOR-MINOR."""
    whole = config(record)
    name, major = record["name"], record["major"]
    return name, f"{name}-{major}", whole.removesuffix(".cfg"), whole


def has_label(record: "Json", text: str) -> bool:
    """Return whether an instance has a label, NAME, or has it with a value, NAME=VALUE."""
    name, equals, value = text.partition("=")
    labels = record.get("labels", {})
    return name in labels and (not equals or labels[name] == value)


# What --filter looks at: whether a record has this value.
FILTERS: "dict[str, Callable[[Json, str], bool]]" = {
    "name": lambda record, value: value in record["instance"],
    "config": lambda record, value: value in versions(record),
    "state": lambda record, value: value in (state(record), record["state"]),
    "ready": lambda record, value: value == is_ready(record),
    "health": lambda record, value: value == health(record),
    "label": lambda record, value: has_label(record, value),
}


# The values that there are, for keys that don't take any.
VALUES = {
    "state": ("starting", "running", "paused", "waiting", "stopping", *AT_REST),
    "ready": ("yes", "no", "-"),
    "health": ("starting", "healthy", "unhealthy", "-"),
}

INSTANCES = Argument(
    "instances",
    metavar="INSTANCE",
    nargs="*",
    type=instance_name,
    help="only these: a name, the beginning of it, or config:NAME or service:NAME for all of that",
)


async def ps(client: "Client", arguments: Namespace) -> int:
    """Print the instances: as a table, by a template, as JSON, or only their names."""
    filters: dict[str, list[str]] = {}
    for key, value in arguments.filter:
        filters.setdefault(key, []).append(value)
    named = bool(arguments.instances)
    records = await named_ones(client, arguments.instances) if named else await client.instances()
    records = chosen(records, filters, arguments.all or named)
    if arguments.quiet:
        lines: Iterable[str] = (record["instance"] for record in records)
    elif arguments.json:
        lines = map(json.dumps, records)
    elif arguments.format:
        lines = (fill_in(arguments.format, record) for record in records)
    else:
        show_table(table(records))
        return 0
    for line in lines:
        print(line)
    return 0


def table(records: "list[Json]") -> list[list[str]]:
    """Return the rows of a table, its heads first; it has nodes if there are any."""
    nodes = any(record.get("node") for record in records)
    names = [name for name in COLUMNS if nodes or name != NODE]
    rows = [[COLUMNS[name](record) for name in names] for record in records]
    return [[name.upper() for name in names], *rows]


async def named_ones(client: "Client", names: "list[str]") -> "list[Json]":
    """Return the records of the instances that names stand for, each once."""
    found = {one["instance"]: one for name in names for one in await client.matching(name)}
    return list(found.values())


def chosen(
    records: "Iterable[Json]", filters: Mapping[str, list[str]], all_of_them: bool
) -> "list[Json]":
    """Return the records that fit one of the values of each filter.

    Instances at rest are left out, unless all are wanted or a filter asks for a state.
    """
    everything = all_of_them or "state" in filters
    return [
        record
        for record in records
        if (everything or record["state"] not in AT_REST)
        and all(any(FILTERS[key](record, v) for v in values) for key, values in filters.items())
    ]


def fill_in(template: str, record: "Json") -> str:
    """Return the template, with the record's values."""
    return FIELD.sub(lambda match: one_line(COLUMNS[match[1].capitalize()](record)), template)


def condition(text: str) -> tuple[str, str]:
    """Return an argument of --filter: its key and its value.

    :raises ArgumentTypeError: if it is not of this form, or there is no such key or value
    """
    key, equals, value = text.partition("=")
    if not equals or key not in FILTERS:
        raise ArgumentTypeError(
            f"{text!r} is no KEY=VALUE with one of these keys: {', '.join(FILTERS)}"
        )
    if value not in VALUES.get(key, [value]):
        raise ArgumentTypeError(
            f"there is no {key} {value!r}: it is one of {', '.join(VALUES[key])}"
        )
    return key, value


def template(text: str) -> str:
    """Return an argument that is a template.

    :raises ArgumentTypeError: if it has a field that instances don't have
    """
    for name in FIELD.findall(text):
        if name.capitalize() not in COLUMNS:
            fields = ", ".join(f".{name}" for name in COLUMNS)
            raise ArgumentTypeError(f"there is no field .{name}: the fields are {fields}")
    if "{{" in FIELD.sub("", text):
        raise ArgumentTypeError(f"{text!r}: write a field as {{{{.Instance}}}}")
    for written, meant in ESCAPES.items():
        text = text.replace(written, meant)
    return text


COMMANDS = (
    Command(
        "ps",
        "show the instances with their state",
        ps,
        (
            Argument(
                "-a", "--all", action="store_true", help="also stopped, ended and failed ones"
            ),
            QUIET,
            JSON,
            Argument(
                "--filter",
                metavar="KEY=VALUE",
                action="append",
                default=[],
                type=condition,
                help=f"only those that fit; KEY is one of {', '.join(FILTERS)}. One of several"
                " values of a key must fit, and all keys",
            ),
            Argument(
                "--format",
                metavar="TEMPLATE",
                type=template,
                help="a line for each, such as '{{.Instance}} {{.State}}'; the fields are the"
                " columns",
            ),
            INSTANCES,
        ),
    ),
)
