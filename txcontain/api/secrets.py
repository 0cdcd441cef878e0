"""Secrets: set, listed by name, removed, and never told."""

from __future__ import annotations

from typing import ClassVar

from attrs import define
from twisted.web.server import Request

from txcontain.api.area import Area, Resources
from txcontain.api.describe import (
    Json,
    answer,
    array,
    bytes_body,
    extension,
    in_path,
    string,
    structure,
)
from txcontain.api.verbs import Collection, ExtensionResource, body
from txcontain.container.keys import string_schema
from txcontain.container.small_files import LONGEST_SECRET, SECRET_NAME
from txcontain.engine import secrets

SECRET = in_path("secret", "the name of a secret", string_schema(SECRET_NAME))
NO_SECRET = {"404": "there is no such secret"}
CONTENT = {"type": "string", "minLength": 1, "maxLength": LONGEST_SECRET}


@define
class Secrets(Area):
    """Secrets, which containers get as files. No answer holds one."""

    paths: ClassVar[Json] = {
        "/secrets": {
            "get": extension(
                "listSecrets",
                "List the names of the secrets, with the instances that have each",
                answer(
                    "not what is in them",
                    structure(
                        {
                            "secrets": array(
                                structure(
                                    {
                                        "name": string("its name"),
                                        "instances": array(string("an instance's name")),
                                    }
                                )
                            )
                        }
                    ),
                ),
            ),
        },
        "/secrets/{secret}": {
            "put": extension(
                "setSecret",
                "Keep a secret, in place of an earlier one",
                answer("it is kept; instances see it at their next start"),
                NO_SECRET,
                requestBody=bytes_body(CONTENT),
            ),
            "delete": extension(
                "removeSecret",
                "Remove a secret that no instance has",
                answer("it is gone"),
                {**NO_SECRET, "409": "instances have it"},
            ),
            "parameters": [SECRET],
        },
    }

    def resources(self) -> Resources:
        """All secrets, and each by its name."""
        return {b"secrets": Collection(ExtensionResource(GET=self.all), self.one)}

    async def all(self, request: Request) -> Json:
        """GET /secrets."""
        names, users = self.manager.vault.names(), secrets.users(self.manager)
        return {"secrets": [{"name": name, "instances": users.get(name, [])} for name in names]}

    def one(self, name: str) -> ExtensionResource:
        """/secrets/NAME."""

        async def put(request: Request) -> None:
            await secrets.put(self.manager, name, body(request))

        async def remove(request: Request) -> None:
            await secrets.remove(self.manager, name)

        return ExtensionResource(PUT=put, DELETE=remove)
