"""Files of instances: read and written as tar streams, kept."""

from __future__ import annotations

from typing import Any, ClassVar

from attrs import define
from twisted.logger import Logger
from twisted.web.server import Request

from txcontain.api.area import Area, Resources
from txcontain.api.bodies import Body
from txcontain.api.describe import (
    BINARY,
    FLAG,
    INSTANCE,
    NO_INSTANCE,
    Json,
    answer,
    body_of,
    bytes_body,
    extension,
    in_query,
    numeric,
    one_of,
    ref,
    string,
    structure,
)
from txcontain.api.verbs import (
    HUNG_UP,
    ExtensionResource,
    flag,
    hang_up_of,
    note,
    query,
    read_body,
    require_write,
    stream,
)
from txcontain.container.document import refuse
from txcontain.container.keys import Key, boolean, printable, string_schema
from txcontain.engine import files
from txcontain.engine.interface import Reading, Writing
from txcontain.errors import Error
from txcontain.exports import committing

NO_COMMIT = "`txcontain cp` copies what is to be kept: make a tarball of that"
TAR = "application/x-tar"
PATH = in_query("path", "an absolute path in the container", string("a path")) | {"required": True}
NO_PATH = {"404": "there is no such instance, or nothing at this path"}
COMMIT_KEYS = {
    "mountable": Key(
        "the name of the new file, NAME.tar", string_schema(files.MOUNTABLE), printable
    ),
    "mount": Key(
        "the writable mount to keep, or /; else the only one", {"type": "string"}, printable
    ),
    "pause": boolean("freeze its processes meanwhile"),
    "image": Key("all of it as an image of this name, instead", {"type": "string"}, printable),
}

log = Logger()


def _path(name: str, text: str) -> str:
    files.check_path(text)
    return text


@define
class Files(Area):
    """The files of instances, also of those that have ended."""

    streamed: ClassVar[str] = "/instances/[^/]+/files/?"
    schemas: ClassVar[Json] = {
        "File": structure(
            {
                "name": string("the last part of the path"),
                "kind": one_of("what it is", *files.KINDS.values(), "other"),
                "mode": numeric("its permissions", 0, 0o7777),
                "owner": numeric("as the container sees it", 0),
                "group": numeric("the same", 0),
                "size": numeric("bytes", 0),
                "changed": numeric("unix time"),
            },
            *("owner", "group"),
        ),
        "CommittedImage": structure(
            {
                "image": string("its name"),
                "digest": string("of its manifest"),
                "layers": numeric("how many it has", 1),
            }
        ),
        "Committed": structure(
            {
                "mountable": string("its name"),
                "mount": string("what it holds"),
                "size": numeric("bytes", 0),
            }
        ),
    }
    paths: ClassVar[Json] = {
        "/instances/{instance}/files": {
            "get": extension(
                "readFiles",
                "Read files of an instance",
                {
                    "description": "a tar stream; with stat=1, what is there",
                    "content": {
                        TAR: {"schema": BINARY},
                        "application/json": {"schema": ref("File")},
                    },
                },
                NO_PATH,
                parameters=[PATH, in_query("stat", "only tell what is there", FLAG)],
            ),
            "put": extension(
                "writeFiles",
                "Write files into a folder of an instance",
                answer("they are there", structure({"path": string("the folder")})),
                NO_PATH,
                parameters=[
                    PATH,
                    in_query(
                        "owners", "keep the stream's owners (else the container's root)", FLAG
                    ),
                ],
                requestBody=bytes_body(),
            ),
            "parameters": [INSTANCE],
        },
        "/instances/{instance}/commit": {
            "post": extension(
                "commit",
                "Keep what an instance has at a writable mount as a mountable, or all as an image",
                answer("it is kept", {"anyOf": [ref("Committed"), ref("CommittedImage")]}),
                NO_INSTANCE,
                requestBody=body_of(COMMIT_KEYS),
            ),
            "parameters": [INSTANCE],
        },
    }

    def below_instance(self, name: str) -> Resources:
        """The files and the commit of one instance."""

        async def read(request: Request) -> Json | None:
            require_write(request)  # there may be secrets in files
            asked = query(request, path=_path, stat=flag)
            path = _needed(asked)
            if asked["stat"]:
                return await self.engine.look_at_file(name, path)
            gone = hang_up_of(request)
            transfer = await self.engine.read_files(name, path)
            gone.addCallback(lambda _: transfer.end(HUNG_UP))
            await _send(request, transfer)
            return None

        async def write(request: Request) -> Json:
            asked = query(request, path=_path, owners=flag)
            path, owners = _needed(asked), bool(asked["owners"])
            given = stream(request)
            transfer = await self.engine.write_files(name, path, owners=owners)
            return await _receive(request, given, transfer, path)

        async def commit(request: Request) -> Json:
            values = read_body(request, COMMIT_KEYS)
            if "image" in values:
                if len(values) > 1:
                    refuse(
                        "an image takes no other key: it has all of an instance, which stands still"
                    )
                instance = self.manager.match(name)
                return await committing.commit(self.manager, instance, values["image"])
            if "mountable" not in values:
                refuse("the key 'mountable' is missing, or 'image'")
            instance, gone = self.manager.match(name), hang_up_of(request)

            def begun(session: Any) -> None:
                gone.addCallback(lambda _: session.end(HUNG_UP))

            what = values.pop("mountable"), values.pop("mount", None), begun
            return await files.commit(self.manager, instance, *what, **values)

        return {
            b"files": ExtensionResource("GET", "PUT", GET=read, PUT=write),
            b"commit": self.of_one_host(ExtensionResource(POST=commit), NO_COMMIT),
        }


async def _send(request: Request, transfer: Reading) -> None:
    if request.method == b"HEAD":
        transfer.end("only the headers were asked for")
        return
    if request.channel is not None:  # else the client has hung up already
        request.setHeader(b"Content-Type", TAR.encode())
        request.registerProducer(transfer.producer, True)
    try:
        await transfer.run(request.write, differs=True)
    except Error as error:  # its client sees only that the stream is cut short
        log.warn("{error}", error=error)
        raise
    finally:
        if request.channel is not None:  # else the connection is lost
            request.unregisterProducer()


async def _receive(request: Request, given: Body, transfer: Writing, path: str) -> Json:
    delivered = given.deliver(transfer.input)
    delivered.addCallbacks(lambda _: transfer.close_input(), lambda _: transfer.end(HUNG_UP))
    await transfer.run(bytes)
    if transfer.left_out:
        note(request, transfer.left_out)
    return {"path": path}


def _needed(asked: dict[str, Any]) -> str:
    if asked["path"] is None:
        refuse("the query has no path", "say which, as in ?path=/etc/hosts")
    path: str = asked["path"]
    return path
