"""v1, the course's API: its paths, statuses and bodies stay as they are."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from attrs import define
from twisted.web.server import Request

from txcontain.api.area import Area, Resources
from txcontain.api.describe import (
    INSTANCE,
    NO_INSTANCE,
    Json,
    answer,
    array,
    json_body,
    ref,
    string,
    structure,
    v1,
)
from txcontain.api.verbs import NamedChildren, Verb, ago, as_of, body, note
from txcontain.container.document import read_object
from txcontain.container.keys import schema_of
from txcontain.container.spec import KEYS, REQUIRED, key_of
from txcontain.engine.interface import Summary

CONFIG = schema_of(KEYS)
KEY = {key: CONFIG[key] for key in ("name", "major", "minor")}
SUMMARY = {"instance": string("the instance's name"), **KEY}


def add_notes(request: Request, notes: Iterable[str]) -> None:
    """Add to an answer what a person should know although it is a success."""
    for text in notes:
        note(request, text)


@define
class V1(Area):
    """Each refuses with an empty body; the reason is in a header."""

    schemas: ClassVar[Json] = {
        "Config": structure(CONFIG, *(set(CONFIG) - set(REQUIRED)), closed=True),
        "Key": structure(KEY, closed=True),
        "Launched": structure(SUMMARY, closed=True),
    }
    paths: ClassVar[Json] = {
        "/config": {
            "post": v1(
                "storeConfig",
                "Store a config",
                answer("it is stored"),
                {"409": "invalid data (Bad Request), or there is a config of this name already"},
                requestBody=json_body("Config"),
            ),
        },
        "/cfginfo": {
            "get": v1(
                "listConfigs",
                "List the stored configs",
                answer("their names, sorted", structure({"files": array(string("a name"))})),
            ),
        },
        "/launch": {
            "post": v1(
                "launch",
                "Start a container from a stored config",
                answer("its script runs", ref("Launched")),
                {
                    "404": "there is no such config",
                    "409": "invalid data (Bad Request), or the config or an image is at fault",
                },
                requestBody=json_body("Key"),
            ),
        },
        "/list": {
            "get": v1(
                "listRunning",
                "List the running instances",
                answer(
                    "in the order of their launch", structure({"instances": array(ref("Launched"))})
                ),
            ),
        },
        "/destroy/{instance}": {
            "delete": v1(
                "destroy",
                "End an instance, and remove what it kept",
                answer("nothing is left of it"),
                NO_INSTANCE,
            ),
            "parameters": [{**INSTANCE, "description": "as its launch named it"}],
        },
        "/destroyall": {
            "delete": v1(
                "destroyAll", "End and remove all instances", answer("nothing is left of them")
            ),
        },
    }

    def resources(self) -> Resources:
        """The course's table."""
        return {
            b"config": Verb(POST=self.config),
            b"cfginfo": Verb(GET=self.cfginfo),
            b"launch": Verb(POST=self.launch),
            b"list": Verb(GET=self.list_running),
            b"destroy": NamedChildren(self.destroy),
            b"destroyall": Verb(DELETE=self.destroy_all),
        }

    async def config(self, request: Request) -> None:
        """POST /config."""
        await self.engine.upload(body(request))

    async def cfginfo(self, request: Request) -> Json:
        """GET /cfginfo."""
        return {"files": await self.engine.config_names()}

    async def launch(self, request: Request) -> Summary:
        """POST /launch."""
        name, major, minor = key_of(read_object(body(request)))
        launched = await self.engine.launch(name, major, minor, ago(request))
        add_notes(request, launched.notes)
        return launched.summary

    async def list_running(self, request: Request) -> Json:
        """GET /list."""
        told = await self.engine.running()
        as_of(request, told.as_of)
        return {"instances": told.records}

    def destroy(self, name: str) -> Verb:
        """DELETE /destroy/INSTANCE."""

        async def destroy(request: Request) -> None:
            add_notes(request, await self.engine.destroy(name))

        return Verb(DELETE=destroy)

    async def destroy_all(self, request: Request) -> None:
        """DELETE /destroyall."""
        await self.engine.destroy_all()
