"""Commands in instances: one whose whole output is the answer."""

from __future__ import annotations

from typing import Any, ClassVar

from attrs import define
from twisted.web.server import Request

from txcontain.api.area import Area, Resources
from txcontain.api.describe import (
    INSTANCE,
    NO_INSTANCE,
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
from txcontain.api.verbs import ExtensionResource, body, query
from txcontain.container.document import read_object, refuse, shown
from txcontain.container.exec_plan import DESCRIBED, Command, read_command
from txcontain.engine import execs

LONGEST, UNLESS_SAID = 3600, 60.0  # seconds that a command may take

# The parameters of a query that may be in it once, with their readers.
OF_COMMAND = dict.fromkeys(("user", "workdir"), lambda _, text: text)
OF_QUERY = [
    in_query("command", "the program; then its arguments", array({"type": "string"})),
    in_query("env", "NAME=VALUE; may be repeated", array({"type": "string"})),
    in_query("user", DESCRIBED["user"]["description"], DESCRIBED["user"]),
    in_query("workdir", DESCRIBED["workdir"]["description"], DESCRIBED["workdir"]),
]


@define
class Execs(Area):
    """Commands in instances."""

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
            "parameters": [INSTANCE],
        },
        "/instances/{instance}/exec/explain": {
            "get": extension(
                "explainExec",
                "Tell how to run a command in an instance by hand",
                answer("a shell script", {"type": "string"}, "text/x-shellscript"),
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
            script = execs.explanation(self.manager, self.manager.match(name), command)
            request.setHeader(b"Content-Type", b"text/x-shellscript; charset=utf-8")
            request.write(script.encode())

        async def run(request: Request) -> Json:
            values = read_object(body(request))
            given = _stdin(values.pop("stdin", ""))
            timeout = _timeout(values.pop("timeout", UNLESS_SAID))
            command = read_command(values)
            session = await execs.start(self.manager, self.manager.match(name), command)
            request.notifyFinish().addErrback(lambda _: session.end("its client has hung up"))
            return await execs.run(session, given, timeout)

        resource: Any = ExtensionResource(POST=run)
        resource.putChild(b"explain", ExtensionResource(GET=explanation))
        return {b"exec": resource}


def _asked(request: Request) -> Command:
    """The command that a query asks for; a shell if it names none.

    Raises InvalidData.
    """
    lists = {name: request.args.pop(name.encode(), []) for name in ("command", "env")}
    texts = {name: [_text(name, word) for word in words] for name, words in lists.items()}
    given = {key: value for key, value in query(request, **OF_COMMAND).items() if value is not None}
    return read_command({"command": texts["command"] or ["/bin/sh"], "env": texts["env"], **given})


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
