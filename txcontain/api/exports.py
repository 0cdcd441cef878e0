"""Configs for other tools: as an image, or as a document that runs it."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.web.server import Request

from txcontain.api.describe import BINARY, Json, extension, in_query, one_of, string
from txcontain.api.verbs import ExtensionResource, choice, note, query, text
from txcontain.errors import InvalidData
from txcontain.exports.exporting import ARCHIVES, TARGETS, Exporter

KINDS = {"compose": "application/yaml", "kubernetes": "application/yaml", "systemd": "text/plain"}
TAR = "application/x-tar"
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
                {**in_query("to", "what to make", one_of("a target", *TARGETS)), "required": True},
                in_query("image", "what the image is called (NAME:MAJOR-MINOR)", string("a name")),
            ],
        ),
    },
}


def export_of(exporter: Exporter, file_name: str) -> ExtensionResource:
    """/configs/NAME-MAJOR-MINOR/export."""

    async def export(request: Request) -> None:
        asked = query(request, to=choice(*TARGETS), image=text)
        if asked["to"] is None:
            raise InvalidData("the query says no target", f"it takes to={' or '.join(TARGETS)}")
        (target,), image = asked["to"], asked["image"]
        if target in ARCHIVES:
            await send_archive(request, target, image)
        else:
            document = await exporter.document(file_name, target, image)
            tell(request, document.notes)
            send(request, KINDS[target], document.text.encode())

    async def send_archive(request: Request, target: str, image: str | None) -> None:
        def begin(notes: Sequence[str]) -> None:
            tell(request, notes)
            request.setHeader(b"Content-Type", TAR.encode())

        if request.method == b"HEAD":
            exporter.manager.read_config(file_name)
            begin([])
            return
        await exporter.send(file_name, target, image, request, begin)

    return ExtensionResource("GET", GET=export)


def tell(request: Request, notes: Sequence[str]) -> None:
    """Say what the target can't express."""
    for sentence in notes:
        note(request, sentence)


def send(request: Request, kind: str, document: bytes) -> None:
    """Write a whole document."""
    request.setHeader(b"Content-Type", f"{kind}; charset=utf-8".encode())
    request.setHeader(b"Content-Length", str(len(document)).encode())
    request.write(document)
