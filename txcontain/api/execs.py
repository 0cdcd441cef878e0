"""Commands in instances: their whole output as the answer, or their streams over a WebSocket.

The terminal of an instance's own program is such a stream, too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from attrs import define
from twisted.web.server import Request
from wsproto.connection import Connection

from txcontain.api.area import Area, Resources
from txcontain.api.describe import (
    FLAG,
    INSTANCE,
    NO_INSTANCE,
    SCRIPT,
    Json,
    answer,
    array,
    extension,
    in_query,
    json_body,
    numeric,
    ref,
    string,
    structure,
)
from txcontain.api.streams import Streams, shake_hands
from txcontain.api.verbs import (
    HUNG_UP,
    ExtensionResource,
    body,
    flag,
    hang_up_of,
    number,
    query,
    require_write,
    send_script,
    text,
)
from txcontain.container.document import read_object, refuse, refuse_unknown, shown
from txcontain.container.exec_plan import (
    COMMAND_KEYS,
    DESCRIBED,
    LONGEST_SIDE,
    Command,
    read_command,
    read_size,
)
from txcontain.engine import execs
from txcontain.engine.interface import Stdio

LONGEST, UNLESS_SAID = 3600, 60.0  # seconds that a command may take

# The parameters of a query that may be in it once, with their readers.
OF_COMMAND: dict[str, Callable[[str, str], Any]] = {
    **dict.fromkeys(("user", "workdir"), text),
    "tty": flag,
    "rows": number,
    "columns": number,
}
OF_SIZE = [
    in_query("rows", "of the terminal", numeric("lines", 1, LONGEST_SIDE)),
    in_query("columns", "of the terminal", numeric("characters", 1, LONGEST_SIDE)),
]
OF_QUERY = [
    in_query("command", "the program; then its arguments", array({"type": "string"})),
    in_query("env", "NAME=VALUE; may be repeated", array({"type": "string"})),
    in_query("user", DESCRIBED["user"]["description"], DESCRIBED["user"]),
    in_query("workdir", DESCRIBED["workdir"]["description"], DESCRIBED["workdir"]),
    in_query("tty", "whether it has a terminal", FLAG),
    *OF_SIZE,
]


@define
class Execs(Area):
    """Commands in instances, and the terminal of one."""

    schemas: ClassVar[Json] = {
        "Command": structure(
            {
                **DESCRIBED,
                "stdin": string("what it reads from its standard input"),
                "timeout": numeric("seconds after which it is ended", 0, LONGEST, "number"),
            },
            *(key for key in DESCRIBED if key != "command"),
            "stdin",
            "timeout",
            closed=True,
        ),
        "Output": structure(
            {
                "stdout": string("what it wrote to its standard output"),
                "stderr": string("the same of its standard error"),
                "exit": ref("Exit"),
            }
        ),
    }
    paths: ClassVar[Json] = {
        "/instances/{instance}/exec": {
            "post": extension(
                "exec",
                "Run a command in an instance, and wait for its end",
                answer("its output, and how it ended", ref("Output")),
                NO_INSTANCE,
                requestBody=json_body("Command"),
            ),
            "get": extension(
                "execStream",
                "Run a command in an instance over a WebSocket (v5.channel.k8s.io)",
                answer("never: 101, and then the command's streams"),
                NO_INSTANCE,
                parameters=OF_QUERY,
            ),
            "parameters": [INSTANCE],
        },
        "/instances/{instance}/attach": {
            "get": extension(
                "attach",
                "Use the terminal of an instance over a WebSocket (v5.channel.k8s.io)",
                answer("never: 101, and then what is typed and shown"),
                NO_INSTANCE,
                parameters=[
                    in_query("logs", "begin with all that it has shown", FLAG),
                    *OF_SIZE,
                ],
            ),
            "parameters": [INSTANCE],
        },
        "/instances/{instance}/exec/explain": {
            "get": extension(
                "explainExec",
                "Tell how to run a command in an instance by hand",
                SCRIPT,
                NO_INSTANCE,
                parameters=OF_QUERY,
            ),
            "parameters": [INSTANCE],
        },
    }

    def below_instance(self, name: str) -> Resources:
        """/instances/NAME/exec and what is below it."""

        async def explanation(request: Request) -> None:
            command = _asked(request)
            send_script(request, await self.engine.explain_exec(name, command))

        async def run(request: Request) -> Json:
            values = read_object(body(request))
            refuse_unknown("an exec", values, (*COMMAND_KEYS, "stdin", "timeout"))
            given = _stdin(values.pop("stdin", ""))
            timeout = _timeout(values.pop("timeout", UNLESS_SAID))
            command, gone = read_command(values), hang_up_of(request)
            session = await self.engine.exec(name, command)
            gone.addCallback(lambda _: session.end(HUNG_UP))
            return await execs.run(session, given, timeout)

        async def stream(request: Request) -> None:
            require_write(request)
            command = _asked(request)
            hands = shake_hands(request)
            session = await self.engine.exec(name, command)
            await _hand_over(request, hands, session)

        async def attach(request: Request) -> None:
            require_write(request)
            asked = query(request, logs=flag, rows=number, columns=number)
            sides = asked["rows"], asked["columns"]
            size = None if sides == (None, None) else read_size(*sides)
            hands = shake_hands(request)
            attached = await self.engine.attach(name, size, from_start=bool(asked["logs"]))
            try:
                await _hand_over(request, hands, attached)
            finally:
                attached.end(HUNG_UP)

        resource: Any = ExtensionResource("GET", POST=run, GET=stream)
        resource.putChild(b"explain", ExtensionResource("GET", GET=explanation))
        return {b"exec": resource, b"attach": ExtensionResource("GET", GET=attach)}


async def _hand_over(request: Request, hands: tuple[bytes, Connection], session: Stdio) -> None:
    """Let a connection be a session's streams; returns when it is closed."""
    answer, connection = hands
    channel: Any = request.channel
    if channel is None:
        session.end(HUNG_UP)
        return
    streams = Streams(session, connection, channel.loseConnection)
    channel.registerProducer(session, True)
    channel.upgrade(request, answer, streams)
    await streams.closed


def _asked(request: Request) -> Command:
    """The command that a query asks for; a shell if it names none.

    Raises InvalidData.
    """
    lists = {name: request.args.pop(name.encode(), []) for name in ("command", "env")}
    texts = {name: [_text(name, word) for word in words] for name, words in lists.items()}
    given = {key: value for key, value in query(request, **OF_COMMAND).items() if value is not None}
    tty, size = given.pop("tty", False), read_size(given.pop("rows", 24), given.pop("columns", 80))
    values = {"command": texts["command"] or ["/bin/sh"], "env": texts["env"], **given}
    return read_command(values, size if tty else None)


def _text(name: str, word: bytes) -> str:
    try:
        return word.decode()
    except UnicodeDecodeError:
        refuse(f"{name} is not UTF-8: {shown(word.decode(errors='replace'))}")


def _stdin(value: object) -> bytes:
    if not isinstance(value, str):
        refuse(f"stdin must be a string, not {shown(value)}")
    return value.encode(errors="replace")


def _timeout(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= LONGEST:
        refuse(f"timeout must be a number of seconds up to {LONGEST}, not {shown(value)}")
    return value
