"""The system: the manager itself and its machine."""

from __future__ import annotations

import os
import platform
from typing import Any, ClassVar

from attrs import define
from twisted.web import http
from twisted.web.server import Request

import twisted
from txcontain import __version__
from txcontain.api.access import READ, WRITE
from txcontain.api.area import Area, Resources
from txcontain.api.describe import (
    PRESSURE,
    Json,
    answer,
    array,
    extension,
    numeric,
    one_of,
    string,
    structure,
)
from txcontain.api.verbs import ExtensionResource
from txcontain.engine.inspection import host
from txcontain.engine.ready import Readiness
from txcontain.engine.recovery import doctor

OF_TOTAL = structure({"total": numeric("bytes", 0), "available": numeric("bytes", 0)})


def send_text(request: Request, text: str) -> None:
    """Answer with plain text."""
    request.setHeader(b"Content-Type", b"text/plain; charset=utf-8")
    request.setHeader(b"Content-Length", str(len(text.encode())).encode())
    request.write(text.encode())


@define
class System(Area):
    """What concerns no instance."""

    paths: ClassVar[Json] = {
        "/doctor": {
            "post": extension(
                "doctor",
                "Look for what should not be there, and remove it",
                answer(
                    "a sentence each",
                    structure({"findings": array(string("what was found and done"))}),
                ),
            ),
        },
        "/healthz": {
            "get": extension(
                "healthz",
                "Tell whether the manager answers; to anyone",
                answer("ok", {"type": "string"}, "text/plain"),
            ),
        },
        "/readyz": {
            "get": extension(
                "readyz",
                "Tell whether the manager can do its work (or else 503); to anyone",
                answer("ok", {"type": "string"}, "text/plain"),
            ),
        },
        "/whoami": {
            "get": extension(
                "whoami",
                "Tell who the manager takes the caller for, and what the caller may do",
                answer(
                    "the caller",
                    structure(
                        {
                            "name": string("as the journal has it: loopback, uid N, token NAME…"),
                            "role": one_of("read: only GET and HEAD", READ, WRITE),
                        }
                    ),
                ),
            ),
        },
        "/host": {
            "get": extension(
                "host",
                "Tell what the machine has, what is left of it, and how many inits are warm",
                answer(
                    "the machine, and the pool",
                    structure(
                        {
                            "processors": numeric("that it has", 1),
                            "memory": OF_TOTAL,
                            "disk": OF_TOTAL,
                            "pressure": PRESSURE,
                            "pool": structure(
                                {
                                    "wanted": numeric("warm inits to keep at least", 0),
                                    "warm": numeric("warm inits that wait for a launch", 0),
                                }
                            ),
                        }
                    ),
                ),
            ),
        },
        "/version": {
            "get": extension(
                "version",
                "Tell the version of the manager, and of what it runs on",
                answer(
                    "versions",
                    structure(
                        {
                            "version": string("that of the manager"),
                            "python": string("that of the Python that runs it"),
                            "twisted": string("that of its Twisted"),
                            "kernel": string("that of the machine's Linux"),
                            "cgroups": one_of("which limit its containers", "1", "2", "none"),
                        }
                    ),
                ),
            ),
        },
    }

    def resources(self) -> Resources:
        """The doctor, the manager's health, the versions, and the caller."""
        readiness = Readiness(self.manager)

        async def healthz(request: Request) -> None:
            send_text(request, "ok\n")

        async def readyz(request: Request) -> None:
            reasons = [*readiness.reasons(), *self.engine.complaints()]
            if reasons:
                request.setResponseCode(http.SERVICE_UNAVAILABLE)
            send_text(request, "".join(f"{line}\n" for line in reasons or ["ok"]))

        return {
            b"healthz": ExtensionResource(GET=healthz),
            b"readyz": ExtensionResource(GET=readyz),
            b"doctor": ExtensionResource(POST=self.doctor),
            b"host": ExtensionResource(GET=self.host),
            b"version": ExtensionResource(GET=self.version),
            b"whoami": ExtensionResource(GET=self.whoami),
        }

    async def host(self, request: Request) -> Json:
        """GET /host."""
        return await host(self.manager)

    async def version(self, request: Request) -> dict[str, str]:
        """GET /version."""
        return {
            "version": __version__,
            "python": platform.python_version(),
            "twisted": twisted.__version__,
            "kernel": os.uname().release,
            "cgroups": self.manager.pool.cgroups.version,
        }

    async def whoami(self, request: Any) -> dict[str, str]:
        """GET /whoami."""
        return {"name": request.caller.name, "role": request.caller.role}

    async def doctor(self, request: Request) -> dict[str, list[str]]:
        """POST /doctor."""
        return {"findings": await doctor(self.manager)}
