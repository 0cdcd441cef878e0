"""The OpenAPI document agrees with the resources, with API.md and with spec.py."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from treq.testing import StubTreq

from tests.api.test_resources import be_known
from tests.fakes import ManagerTestCase
from txcontain.api import openapi
from txcontain.api.areas import AREAS
from txcontain.api.openapi import DOCUMENT
from txcontain.api.resources import make_root
from txcontain.api.verbs import STATUSES, Collection
from txcontain.container.spec import KEYS, LIMITS, REQUIRED, from_json
from txcontain.engine.this_host import ThisHost
from txcontain.errors import InvalidData

API = (Path(__file__).parents[2] / "API.md").read_text()
METHODS = ("get", "head", "post", "put", "patch", "delete", "options")


def operations() -> set[tuple[str, str]]:
    """(path, method) of every operation, such as ("/list", "GET")."""
    return {
        (path, method.upper())
        for path, item in DOCUMENT["paths"].items()
        for method in item
        if method in METHODS
    }


def documented_in_api_md() -> set[tuple[str, str]]:
    """(path, method) of each of API.md's headings."""
    return {
        (re.sub("[A-Z]+", lambda word: f"{{{word[0].lower()}}}", path), method)
        for heading in re.findall(r"^### (.*)", API, re.MULTILINE)
        for method, path in re.findall(r"([A-Z]+) (/[\w/.]+)", heading)
    }


def table(title: str) -> list[str]:
    """The first cell of each row of API.md's first table below a heading."""
    section = API.split(f"## {title}\n", 1)[1].split("\n## ", 1)[0]
    rows = section[section.index("\n|---|") :].strip().split("\n\n")[0].splitlines()[1:]
    return [row.split("|")[1].strip() for row in rows]


NAMES = {
    "instance": "web-1",
    "volume": "pg",
    "config": "web-1-1",
    "secret": "db",
    "stack": "s",
    "service": "a",
    "image": "app",
    "launch": "0123",
    "node": "h1",
}
NAMED_INSIDE = (
    "/launch",
    "/logs",
    "/instances",
    "/stats/history",
    "/stacks:post",
)  # the query or the body
OF_MANY = ("/nodes",)  # a manager of one host does not have them
OF_PAGE = ("/", "/ui")  # files for a browser


def is_named(path: str, method: str) -> bool:
    """Whether a request names something, which there may not be."""
    return "{" in path or not {path, f"{path}:{method}"}.isdisjoint((*NAMED_INSIDE, *OF_MANY))


def references(value: Any) -> Iterator[str]:
    """Every $ref in a document."""
    if isinstance(value, dict):
        yield from filter(None, [value.get("$ref")])
        value = list(value.values())
    for part in value if isinstance(value, list) else ():
        yield from references(part)


def paths_below(resource: Any, path: str) -> Iterator[str]:
    """The paths of all resources that are put below one."""
    for name in resource.listStaticNames():
        below = f"{path}/{name.decode()}"
        yield below
        yield from paths_below(resource.getStaticEntity(name), below)


class DocumentTests(ManagerTestCase):
    """The document, compared with all that it describes."""

    def setUp(self) -> None:
        super().setUp()
        be_known(self)
        self.root = make_root(ThisHost(self.manager))
        self.http: Any = StubTreq(self.root)

    def ask(self, method: str, path: str) -> tuple[Any, bytes]:
        """A response and its body."""
        response = self.successResultOf(self.http.request(method, f"http://localhost{path}"))
        content = response.content()
        self.http.flush()
        return response, self.successResultOf(content)

    def test_served(self) -> None:
        """GET /openapi.json answers with it."""
        response, body = self.ask("GET", "/openapi.json")
        self.assertEqual((response.code, json.loads(body)), (200, DOCUMENT))
        self.assertEqual(response.headers.getRawHeaders("Content-Type"), ["application/json"])

    def test_api_md(self) -> None:
        """Each path and method that API.md describes is in it, and the other way round."""
        without_head = {(path, method) for path, method in operations() if method != "HEAD"}
        self.assertEqual(without_head, documented_in_api_md())

    def test_methods(self) -> None:
        """Each path has exactly the methods that its resource has, which Allow names."""
        for path in DOCUMENT["paths"]:
            response, _ = self.ask("PROPFIND", path.format(**NAMES))
            self.assertEqual(response.code, 405, path)
            allowed = set(response.headers.getRawHeaders("Allow")[0].split(", "))
            self.assertEqual({m for p, m in operations() if p == path}, allowed, path)

    def test_queries(self) -> None:
        """Each operation of ours refuses a parameter that the document does not give it."""
        for path, method in operations():
            operation = DOCUMENT["paths"][path][method.lower()]
            if operation["tags"] == ["v1"] or method == "HEAD":  # which have no body
                continue
            response, body = self.ask(method, path.format(**NAMES) + "?nonsense=1")
            self.assertEqual(response.code, 409, (method, path))
            problem = json.loads(body)
            self.assertEqual(problem["detail"], "the query has no parameter 'nonsense'")
            takes_none = problem["chain"] == ["it takes none"]
            self.assertEqual(takes_none, "parameters" not in operation, (method, path))

    def test_resources(self) -> None:
        """Each resource that there is has a path."""
        found = set(paths_below(self.root, ""))
        instances = self.root.getStaticEntity(b"instances")
        self.assertIsInstance(instances, Collection)
        found |= set(paths_below(instances.getChild(b"web-1", None), "/instances/{instance}"))
        found |= {"/instances/{instance}", "/destroy/{instance}", "/configs/{config}"}
        configs: Any = self.root.getStaticEntity(b"configs")
        found |= set(paths_below(configs.getChild(b"web-1-01", None), "/configs/{config}"))
        found |= {"/secrets/{secret}"}
        found |= {"/volumes/{volume}"}
        volumes: Any = self.root.getStaticEntity(b"volumes")
        found |= set(paths_below(volumes.getChild(b"pg", None), "/volumes/{volume}"))
        found |= {"/images/{image}", "/steps/{config}", "/steps/{config}/{launch}"}
        found |= {"/escapes/{config}"}
        images: Any = self.root.getStaticEntity(b"images")
        found |= set(paths_below(images.getChild(b"app", None), "/images/{image}"))
        found |= {"/stacks/{stack}", "/services/{service}"}
        stacks: Any = self.root.getStaticEntity(b"stacks")
        found |= set(paths_below(stacks.getChild(b"shop", None), "/stacks/{stack}"))
        services: Any = self.root.getStaticEntity(b"services")
        found |= set(paths_below(services.getChild(b"a", None), "/services/{service}"))
        nodes: Any = self.root.getStaticEntity(b"nodes")
        found |= {"/nodes/{node}", *paths_below(nodes.getChild(b"h1", None), "/nodes/{node}")}
        self.assertEqual(set(DOCUMENT["paths"]), found - {"/destroy", "/steps", *OF_PAGE})

    def test_statuses(self) -> None:
        """Each status that a request can get is there, and in API.md."""
        rows = {int(row[:3]) for row in table("What every request can get")}
        self.assertEqual(rows, {400, 401, 403, 404, 405, 408, 409, 500, 501, 503})
        self.assertLessEqual({status for _, status, *_ in STATUSES}, rows)
        for path, item in DOCUMENT["paths"].items():
            for method in set(item) & set(METHODS):
                answers = {int(status) for status in item[method]["responses"]}
                self.assertEqual(rows - {404, 405} | {200}, answers - {404}, (path, method))
                self.assertEqual(404 in answers, is_named(path, method), (path, method))

    def test_types(self) -> None:
        """Each type of a problem is in API.md, with its status."""
        rows = table("The types of problems")
        types = [f"`urn:txcontain:{name}`" for *_, name in STATUSES]
        self.assertEqual(rows, types)

    def test_operations(self) -> None:
        """Each operation has an id of its own, and a tag that is described."""
        found = [DOCUMENT["paths"][path][method.lower()] for path, method in operations()]
        ids = {operation["operationId"] for operation in found}
        self.assertEqual(len(ids), len(found))
        tags = {tag["name"] for tag in DOCUMENT["tags"] if tag["description"]}
        self.assertEqual({tag for operation in found for tag in operation["tags"]}, tags)

    def test_areas(self) -> None:
        """No area takes a path or a schema that another has."""
        for kind in ("paths", "schemas"):
            names = [name for area in AREAS.values() for name in getattr(area, kind)]
            self.assertEqual(sorted(set(names)), sorted(names), kind)

    def test_config_keys(self) -> None:
        """The keys of a config and of its limits are spec.py's, and those of API.md's tables."""
        config = openapi.SCHEMAS["Config"]
        self.assertEqual(set(config["properties"]), set(KEYS))
        self.assertEqual(config["required"], list(REQUIRED))
        self.assertEqual(set(config["properties"]["limits"]["properties"]), set(LIMITS))
        rows = re.findall(r"`(\w+)`", " ".join(table("A config")))
        self.assertEqual(set(rows), set(KEYS))

    def test_instance_keys(self) -> None:
        """What API.md says that is told of an instance is in the schema, and is told."""
        section = API.split("### GET /instances/INSTANCE\n", 1)[1].split("\n### ", 1)[0]
        of_parts = {"seconds", *openapi.SCHEMAS["Check"]["properties"]}
        named = set(re.findall(r"`(\w+)`", section)) - of_parts
        keys = set(openapi.SCHEMAS["Instance"]["properties"])
        self.assertEqual(named, keys - set(openapi.SCHEMAS["Record"]["properties"]))
        _, body = self.ask("GET", f"/instances/{self.launch().name}")
        self.assertLessEqual(keys, set(json.loads(body)))

    def test_bounds(self) -> None:
        """The manager refuses numbers just beyond the bounds that the document gives."""
        for name, key in {**KEYS, **LIMITS}.items():
            for bound, beyond in (("minimum", -1), ("maximum", 1)):
                if bound in key.schema:
                    self.assertIsNotNone(key(name, key.schema[bound]))
                    self.assertRaises(InvalidData, key, name, key.schema[bound] + beyond)

    def test_example(self) -> None:
        """The example of API.md is a config."""
        example = re.findall(r"```json\n(.*?)```", API, re.DOTALL)[0]
        self.assertEqual(from_json(example.encode()).name, "sensiblename")

    def test_references(self) -> None:
        """Every reference leads somewhere."""
        for reference in set(references(DOCUMENT)):
            place = DOCUMENT
            for name in reference.removeprefix("#/").split("/"):
                place = place[name]
