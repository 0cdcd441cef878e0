"""Images: loaded, listed, looked at, named, removed."""

from __future__ import annotations

from typing import Any, ClassVar

from attrs import define
from twisted.web.resource import Resource
from twisted.web.server import Request

from txcontain.api.area import Area, Resources
from txcontain.api.describe import (
    Json,
    answer,
    array,
    body_of,
    bytes_body,
    extension,
    in_path,
    in_query,
    numeric,
    or_null,
    ref,
    string,
    structure,
)
from txcontain.api.verbs import Collection, ExtensionResource, hang_up_of, query, read_body, stream
from txcontain.container.keys import Key, boolean, printable
from txcontain.container.reference import LONGEST_REFERENCE
from txcontain.engine import loading

NO_IMAGE = {"404": "there is no such image"}
NAME = {"type": "string", "minLength": 1, "maxLength": LONGEST_REFERENCE}
IMAGE = in_path("image", "its name, or its digest or the beginning of that", NAME)
PULL_KEYS = {
    "name": Key("the image, such as registry:5000/app:1.4", NAME, printable),
    "insecure": boolean("over plain HTTP: only from a registry at a loopback address"),
}
TAG_KEYS = {"name": Key("another name for it, such as registry:5000/app:1.4", NAME, printable)}
OF_IMAGE: Json = {
    "digest": string("of its manifest"),
    "names": array(string("as short as a person may write it")),
    "platform": string("OS/ARCHITECTURE[/VARIANT]"),
    "created": string("when it was made (RFC 3339), as it says itself; empty if it does not"),
    "added": numeric("unix time when it came here", kind="number"),
    "layers": numeric("how many", 1),
    "bytes": numeric("of the disk that they take; images share layers", 0),
    "used_by": array(string("an instance's name")),
}


@define
class Images(Area):
    """OCI images that were loaded or pulled."""

    streamed: ClassVar[str] = "/images/?"
    schemas: ClassVar[Json] = {
        "Image": structure(OF_IMAGE),
        "WholeImage": structure(
            {
                **OF_IMAGE,
                "manifest": {"type": "object", "description": "its manifest (OCI image-spec)"},
                "config": {"type": "object", "description": "its config (OCI image-spec)"},
                "diff_ids": array(string("the digest of a layer, decompressed")),
            }
        ),
        "ImageStep": structure(
            {
                "created": string("when (RFC 3339)"),
                "created_by": string("by which command"),
                "comment": string("of whoever made it"),
                "layer": or_null(string("the digest of what it added")),
                "compressed": numeric("bytes of that, as it came", 0),
            }
        ),
    }
    paths: ClassVar[Json] = {
        "/images": {
            "get": extension(
                "listImages",
                "List the images",
                answer("by name", structure({"images": array(ref("Image"))})),
            ),
            "post": extension(
                "pullImage",
                "Get an image from its registry, in place of what its name stood for",
                answer("it is here", ref("Image")),
                {"409": "the registry does not have it, or it can't be used"},
                requestBody=body_of(PULL_KEYS, "name"),
            ),
            "put": extension(
                "loadImages",
                "Load the images of an archive: an OCI image layout, or of docker save",
                answer("they are here", structure({"images": array(ref("Image"))})),
                {"409": "it is no archive of images, or one of them is damaged"},
                parameters=[in_query("name", "what to call the only image in it", NAME)],
                requestBody=bytes_body(),
            ),
        },
        "/images/{image}": {
            "get": extension(
                "inspectImage",
                "Tell all that is known of an image",
                answer("its documents too", ref("WholeImage")),
                NO_IMAGE,
            ),
            "delete": extension(
                "removeImage",
                "Remove a name of an image, and the image with its last one",
                answer(
                    "they are gone", structure({"removed": array(string("a name that is gone"))})
                ),
                {**NO_IMAGE, "409": "instances use it, or the digest is not one image's"},
            ),
            "parameters": [IMAGE],
        },
        "/images/{image}/history": {
            "get": extension(
                "imageHistory",
                "Tell how each layer of an image was made",
                answer("the latest step first", structure({"history": array(ref("ImageStep"))})),
                NO_IMAGE,
            ),
            "parameters": [IMAGE],
        },
        "/images/{image}/tag": {
            "post": extension(
                "tagImage",
                "Give an image another name, also one that stood for another image",
                answer("it has it", ref("Image")),
                NO_IMAGE,
                requestBody=body_of(TAG_KEYS, "name"),
            ),
            "parameters": [IMAGE],
        },
    }

    def resources(self) -> Resources:
        """/images, and below it one for each."""
        everything = ExtensionResource("PUT", GET=self.all, PUT=self.load, POST=self.pull)
        return {b"images": Collection(everything, self.one)}

    async def all(self, request: Request) -> Json:
        """GET /images."""
        images = self.manager.arrivals.images
        found = sorted(images.known.values(), key=lambda one: images.names_of(one.digest))
        return {"images": [loading.told(self.manager, one) for one in found]}

    async def load(self, request: Request) -> Json:
        """PUT /images."""
        name = query(request, name=printable)["name"]
        loaded = await loading.load(self.manager, stream(request), name)
        return {"images": [loading.told(self.manager, one) for one in loaded]}

    async def pull(self, request: Request) -> Json:
        """POST /images."""
        asked, gone = read_body(request, PULL_KEYS, "name"), hang_up_of(request)
        insecure = asked.get("insecure", False)
        image = await loading.pull(self.manager, asked["name"], insecure, gone)
        return loading.told(self.manager, image)

    def one(self, name: str) -> Resource:
        """/images/NAME."""

        async def inspect(request: Request) -> Json:
            image = self.manager.arrivals.images.get(name)
            return {
                **loading.told(self.manager, image),
                "manifest": image.manifest.plain(),
                "config": image.config.plain(),
                "diff_ids": list(image.config.diff_ids),
            }

        async def remove(request: Request) -> Json:
            return {"removed": await loading.remove(self.manager, name)}

        async def history(request: Request) -> Json:
            return {"history": loading.history(self.manager.arrivals.images.get(name))}

        async def tag(request: Request) -> Json:
            other = read_body(request, TAG_KEYS, "name")["name"]
            return loading.told(self.manager, await self.manager.arrivals.images.tag(name, other))

        resource = ExtensionResource(GET=inspect, DELETE=remove)
        put: Any = resource.putChild
        put(b"history", ExtensionResource(GET=history))
        put(b"tag", ExtensionResource(POST=tag))
        return resource
