"""Configs for other tools: as an image, or as a document that runs it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from twisted.web.server import Request

from txcontain.api.describe import (
    BINARY,
    Json,
    Keys,
    answer,
    body_of,
    extension,
    in_query,
    one_of,
    string,
    structure,
)
from txcontain.api.verbs import (
    ExtensionResource,
    choice,
    note,
    query,
    read_body,
    require_write,
    text,
)
from txcontain.container.keys import Key, boolean, printable
from txcontain.engine.manager import Manager
from txcontain.errors import InvalidData
from txcontain.exports.exporting import ARCHIVES, OF_STACKS, TARGETS, exporter_of
from txcontain.exports.written import Document

KINDS = {"compose": "application/yaml", "kubernetes": "application/yaml", "systemd": "text/plain"}
TAR = "application/x-tar"
TO = "what to make"
TEXT = {"type": "string"}
PUSH_KEYS: Keys = {
    "image": Key("what it is called there, such as registry:5000/app:1.4", TEXT, printable),
    "insecure": boolean("over plain HTTP, to a registry on this machine"),
}
PATHS: Json = {
    "/configs/{config}/export": {
        "get": extension(
            "exportConfig",
            "Send a config as other tools read it: an image, or a document that runs it",
            {
                "description": "what the target can't express is said in Txcontain-Note, and in "
                "the document itself",
                "content": {
                    TAR: {"schema": BINARY},
                    **{kind: {"schema": string("the document")} for kind in {*KINDS.values()}},
                },
            },
            {
                "404": "there is no such config",
                "409": "the target or the image's name can't be one, or the config or an image is "
                "at fault",
            },
            parameters=[
                {**in_query("to", TO, one_of("a target", *TARGETS)), "required": True},
                in_query("image", "what the image is called (NAME:MAJOR-MINOR)", string("a name")),
            ],
        ),
    },
    "/configs/{config}/push": {
        "post": extension(
            "pushConfig",
            "Send the image of a config to a registry",
            answer(
                "it is there",
                structure(
                    {
                        "image": string("what it is called there"),
                        "digest": string("of its manifest"),
                    }
                ),
            ),
            {
                "404": "there is no such config",
                "409": "the registry refuses it, or the config or an image is at fault",
            },
            requestBody=body_of(PUSH_KEYS, "image"),
        ),
    },
}

OF_STACK: Json = {
    "get": extension(
        "exportStack",
        "Send a stack as a document of another tool",
        {
            "description": "what the target can't express is said in Txcontain-Note, and in it",
            "content": {"application/yaml": {"schema": string("the document")}},
        },
        {
            "404": "there is no such stack",
            "409": "there is no such target, or a config or an image is at fault",
        },
        parameters=[{**in_query("to", TO, one_of("a target", *OF_STACKS)), "required": True}],
    ),
}


def export_of(manager: Manager, file_name: str) -> ExtensionResource:
    """/configs/NAME-MAJOR-MINOR/export."""
    exporter = exporter_of(manager)

    async def export(request: Request) -> None:
        require_write(request)  # there may be secrets in tarballs
        asked = query(request, to=choice(*TARGETS), image=text)
        target, image = wanted(asked["to"], TARGETS), asked["image"]
        if target in ARCHIVES:
            await send_archive(request, target, image)
        else:
            send(request, target, await exporter.document(file_name, target, image))

    async def send_archive(request: Request, target: str, image: str | None) -> None:
        def begin(notes: Sequence[str]) -> None:
            tell(request, notes)
            request.setHeader(b"Content-Type", TAR.encode())

        if request.method == b"HEAD":
            manager.read_config(file_name)
            begin([])
            return
        await exporter.send(file_name, target, image, request, begin)

    return ExtensionResource("GET", GET=export)


def tell(request: Request, notes: Sequence[str]) -> None:
    """Say what the target can't express."""
    for sentence in notes:
        note(request, sentence)


def send(request: Request, target: str, document: Document) -> None:
    """Write a whole document, and say what it can't express."""
    tell(request, document.notes)
    text = document.text.encode()
    request.setHeader(b"Content-Type", f"{KINDS[target]}; charset=utf-8".encode())
    request.setHeader(b"Content-Length", str(len(text)).encode())
    request.write(text)


def wanted(asked: tuple[str, ...] | None, targets: Iterable[str]) -> str:
    """What a query asks for. Raises InvalidData if it does not say."""
    if asked is None:
        raise InvalidData("the query says no target", f"it takes to={' or '.join(targets)}")
    return asked[0]


def push_of(manager: Manager, file_name: str) -> ExtensionResource:
    """/configs/NAME-MAJOR-MINOR/push."""

    async def push(request: Request) -> Json:
        asked = read_body(request, PUSH_KEYS, "image")
        image = asked["image"]
        digest, notes = await exporter_of(manager).push(
            file_name, image, asked.get("insecure", False)
        )
        tell(request, notes)
        return {"image": image, "digest": digest}

    return ExtensionResource(POST=push)


def export_of_stack(manager: Manager, name: str) -> ExtensionResource:
    """/stacks/NAME/export."""

    async def export(request: Request) -> None:
        require_write(request)
        target = wanted(query(request, to=choice(*OF_STACKS))["to"], OF_STACKS)
        send(request, target, await exporter_of(manager).stack(name, target))

    return ExtensionResource("GET", GET=export)
