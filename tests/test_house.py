"""The rules of the house: who may import whom, and what every file has."""

import ast
import re
from pathlib import Path
from typing import Any, cast

from twisted.trial.reporter import TestResult
from twisted.trial.unittest import SynchronousTestCase

from tests import support
from txcontain import errors

PROJECT = Path(__file__).resolve().parents[1]
PACKAGE = PROJECT / "txcontain"
UI = PACKAGE / "ui"
MANAGER = sorted({*PACKAGE.rglob("*.py")} - {*PACKAGE.glob("cli/*")})
CLI = sorted(PROJECT.glob("txcontain/cli/*.py"))
TESTS = sorted(PROJECT.glob("tests/**/test_*.py"))
# A module imports from its own room, and from rooms that stand below it.
ROOMS = (
    *"tap unit api swarm exports services engine images runtime network logs host".split(),
    *"container later errors options".split(),
)
PROGRAMS = ("container/init.py", "logs/logd.py")  # run by their path: they stand on nothing
ALONE = "container.init"  # nothing imports it
WITHOUT_TWISTED = [
    "container",
    *(
        f"exports/{name}"
        for name in "accounts compose image kubernetes notes quadlet subject written".split()
    ),
    "host/cgroups",
    "host/files",
    "host/id_ranges",
    "host/isolation",
    "host/kernel",
    "host/listeners",
    "host/machine",
    "host/meters",
    "host/os_errors",
    "host/processes",
    "host/resolv_conf",
    "host/sockets",
    "host/syscalls",
    "images/oci_writing",
    "logs/segments",
    "logs/logd",
    "services/decide",
    "services/document",
    "services/revision",
    "services/schedule",
    "services/steps",
    "services/wish",
    "swarm/mapping",
    "errors",
]
DOCUMENTS = [
    path for folder in ("", "docs/**/", "examples/**/") for path in PROJECT.glob(folder + "*.md")
]
LONGEST = 600  # lines
LONGER = {"init.py": 1800, "logd.py": 850}  # each is one file, on purpose


def parse(path: Any, *, for_types: bool = False) -> Any:
    """A file's syntax tree; what is there only for the type checker if that is wanted."""
    tree = ast.parse(path.read_text(), str(path))
    tree.body = [node for node in tree.body if for_types or not is_for_types(node)]
    return tree


def is_for_types(node: Any) -> Any:
    return isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"


def imports(path: Any, *, for_types: bool = False) -> Any:
    """The full names of all that a file imports, at its top or inside of its functions."""
    names = set()
    for node in ast.walk(parse(path, for_types=for_types)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{'.' * node.level}{node.module}.{alias.name}" for alias in node.names}
    return names


def modules_of_ours(path: Any, *, for_types: bool = False) -> Any:
    """The modules that a file imports of txcontain: ``room.module``, or one that is a room."""
    found = set()
    for name in imports(path, for_types=for_types):
        parts = name.split(".")[1:]
        if name.startswith("txcontain.") and parts[0] != "__version__":
            depth = 2 if (PACKAGE / parts[0]).is_dir() else 1
            found.add(".".join(parts[:depth]))
    return found


def name_of(path: Any) -> Any:
    """A module of the manager, as ``modules_of_ours`` names it."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def headings(document: Path) -> set[str]:
    """The headings of a document, as links name them."""
    lines = re.findall(r"^#+ (.*)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", line.lower()).replace(" ", "-") for line in lines}


class Arrows(SynchronousTestCase):
    """Imports point one way."""

    def test_every_room_has_its_place(self) -> None:
        """A new room is placed in the order, and one that has gone is taken out."""
        rooms = {name_of(path).split(".")[0] for path in MANAGER}
        self.assertEqual(sorted(rooms - {"__init__"}), sorted(ROOMS))

    def test_downwards(self) -> None:
        """A module imports from its own room, and from rooms below, also for its types."""
        for path in MANAGER:
            room = name_of(path).split(".")[0]
            below = ROOMS[ROOMS.index(room) :] if room in ROOMS else []
            used = {name.split(".")[0] for name in modules_of_ours(path, for_types=True)}
            self.assertEqual(used - {*below}, set(), path.name)

    def test_no_circle(self) -> None:
        """No module imports itself, by way of whatever others, not even for its types."""
        uses = {name_of(path): modules_of_ours(path, for_types=True) for path in MANAGER + CLI}
        while free := {name for name, used in uses.items() if not used & {*uses}}:
            for name in free:
                del uses[name]
        self.assertEqual(uses, {})

    def test_the_init_stands_alone(self) -> None:
        """No module imports init.py."""
        for path in MANAGER + CLI:
            self.assertNotIn(ALONE, modules_of_ours(path), path.name)

    def test_programs_stand_on_nothing(self) -> None:
        """What is run by its path imports nothing of the project nor of others."""
        for program in PROGRAMS:
            names = {name.split(".")[0] for name in imports(PACKAGE / program)}
            self.assertFalse({"txcontain", "twisted", "attrs"} & names)

    def test_the_cli_knows_no_module_of_the_manager(self) -> None:
        """The commands import of txcontain only one another."""
        for path in CLI:
            others = [name for name in modules_of_ours(path) if not name.startswith("cli")]
            self.assertEqual(others, [], path.name)

    def test_one_place_for_the_reactor(self) -> None:
        """Only tap.py, where all is wired, imports the global reactor."""
        found = [path.name for path in MANAGER if "twisted.internet.reactor" in imports(path)]
        self.assertEqual(found, ["tap.py"])

    def test_one_place_for_what_is_done_later(self) -> None:
        """Only later.py has the reactor call back, or begins a coroutine.

        So no timer is kept by hand, no loop looks without end, and no failure is lost.
        """
        wanted = re.compile(r"\b(callLater|deferLater|fromCoroutine|ensureDeferred)\b")
        found = {path.name for path in MANAGER if wanted.search(path.read_text())}
        self.assertEqual(found, {"later.py"})

    def test_without_twisted(self) -> None:
        """What decides, or asks the kernel, is plain Python, which blocks or returns."""
        for path in MANAGER:
            place = str(path.relative_to(PACKAGE).with_suffix(""))
            if place in WITHOUT_TWISTED or place.split("/")[0] in WITHOUT_TWISTED:
                used = [name for name in imports(path) if name.startswith("twisted.")]
                self.assertEqual(used, [], place)

    def test_no_relative_imports(self) -> None:
        """Every import says whose module it is (what this test reads relies on it)."""
        for path in MANAGER + CLI:
            self.assertFalse([name for name in imports(path) if name.startswith(".")], path.name)

    def test_the_plugin(self) -> None:
        """The plugin imports nothing of ours: twistd loads it to list all plugins."""
        self.assertEqual(modules_of_ours(PROJECT / "twisted/plugins/txcontain_plugin.py"), set())


class Errors(SynchronousTestCase):
    """How errors are made."""

    def test_made_anew(self) -> None:
        """No error is made once for all: its traceback would keep all that it ever went through."""
        names = {name for name in vars(errors) if name[0].isupper()}
        for path in MANAGER:
            for node in parse(path).body:
                made = isinstance(node, ast.Assign) and isinstance(node.value, ast.Call)
                if made:
                    function = node.value.func
                    name = getattr(function, "attr", getattr(function, "id", ""))
                    self.assertNotIn(name, names, f"{path.name}: {node.lineno}")


class Files(SynchronousTestCase):
    """What every file has."""

    def undocumented(self, path: Any, wanted: Any) -> Any:
        """The names in a file of what is wanted and has no docstring."""
        tree = parse(path)
        classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
        nodes = [*tree.body, *(node for one in classes for node in one.body)]
        kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        named = [node for node in nodes if isinstance(node, kinds) and wanted(node.name)]
        return [f"{path.name}: {node.name}" for node in named if not ast.get_docstring(node)]

    def test_the_public_is_documented(self) -> None:
        """Every module, and every public class, function and method of it, has a docstring."""
        for path in MANAGER + CLI:
            self.assertTrue(ast.get_docstring(parse(path)), path.name)
            lacking = self.undocumented(path, lambda name: not name.startswith("_"))
            self.assertEqual(lacking, [])

    def test_every_test_says_what_it_proves(self) -> None:
        """Every test has a docstring."""
        self.assertGreater(len(TESTS), 10)
        for path in TESTS:
            self.assertEqual(self.undocumented(path, lambda name: name.startswith("test")), [])

    def test_length(self) -> None:
        """No module is longer than a person reads at one go."""
        for path in MANAGER + CLI:
            lines = len(path.read_text().splitlines())
            self.assertLessEqual(lines, LONGER.get(path.name, LONGEST), path.name)


class Packages(SynchronousTestCase):
    """What is installed: tests/integration/test_wheel.py tries that it works."""

    def test_every_module_is_installed(self) -> None:
        """Every folder with a module of the manager's or the CLI's is a package."""
        folders = {path.parent for path in PROJECT.glob("txcontain/**/*.py")}
        self.assertEqual({path for path in folders if not (path / "__init__.py").exists()}, set())

    def test_what_is_no_module_is_installed(self) -> None:
        """What is no Python is of a kind that pyproject.toml names."""
        files = [path for path in PROJECT.glob("txcontain/**/*") if path.is_file()]
        of_page = {
            path.parent.relative_to(PACKAGE).as_posix() for path in files if UI in path.parents
        }
        kinds = {p.suffix for p in files if "__pycache__" not in p.parts and UI not in p.parents}
        self.assertEqual((kinds, of_page), ({".py", ".sh", ".service"}, {"ui", "ui/vendor"}))
        settings = (PROJECT / "pyproject.toml").read_text()
        self.assertIn('"*" = ["*.sh", "*.service"]\ntxcontain = ["ui/*", "ui/vendor/*"]', settings)

    def test_the_plugin_is_no_package(self) -> None:
        """Nothing makes a package of twisted/plugins/: it would hide the other plugins."""
        self.assertFalse([*PROJECT.glob("twisted/**/__init__.py")])


class Documents(SynchronousTestCase):
    """What strangers read."""

    def test_links(self) -> None:
        """Every link of a document leads to a file, and to a heading in it if it names one."""
        for document in DOCUMENTS:
            for link in re.findall(r"\]\((?!https?:)([^)\s]+)", document.read_text()):
                path, _, heading = link.partition("#")
                file = document.parent / path if path else document
                self.assertTrue(file.exists(), f"{document.name}: {link}")
                if heading:
                    self.assertIn(heading, headings(file), f"{document.name}: {link}")

    def test_targets(self) -> None:
        """Every target of make that a document tells a person to make is one."""
        targets = set(re.findall(r"^([a-z_-]+):", (PROJECT / "Makefile").read_text(), re.M))
        for document in DOCUMENTS:
            named = re.findall(r"^make ([a-z_-]+)|`make ([a-z_-]+)", document.read_text(), re.M)
            self.assertEqual({a or b for a, b in named} - targets, set(), document.name)

    def test_decisions(self) -> None:
        """Every decision is in the list of them, and has the three parts."""
        folder = PROJECT / "docs/decisions"
        listed = re.findall(r"\((\d{4}-[\w-]+\.md)\)", (folder / "README.md").read_text())
        self.assertEqual(sorted(listed), sorted(path.name for path in folder.glob("[0-9]*.md")))
        for name in listed:
            parts = re.findall(r"^\*\*(\w+)\.\*\*", (folder / name).read_text(), re.MULTILINE)
            self.assertEqual(parts, ["Context", "Decision", "Consequences"], name)

    def test_names_of_files(self) -> None:
        """Every file that CONTRIBUTING.md names is there."""
        text = (PROJECT / "CONTRIBUTING.md").read_text()
        for name in re.findall(r"`((?:txcontain|tests|cli)/[a-z_/.]+)`", text):
            self.assertTrue((PROJECT / name).exists(), name)


class NeedsRoot(SynchronousTestCase):
    """The decorator of tests that need root."""

    def decorated(self, reason: str, ci: Any) -> Any:
        """A decorated test, and a class of one, on a machine that lacks what the reason says."""
        self.patch(support, "lacking", lambda: reason)
        self.patch(support.os, "environ", {"CI": ci} if ci else {})

        class Class(SynchronousTestCase):
            def test_it(self) -> None:
                pass

        class Single(SynchronousTestCase):
            @support.needs_root
            def test_it(self) -> None:
                pass

        return support.needs_root(Class)("test_it"), Single("test_it")

    def outcome(self, test: Any) -> Any:
        """What becomes of a test: successes, and the reasons of skips and of failures."""
        result = TestResult()
        test.run(result)
        self.assertEqual(result.errors, [])
        skips = [reason for _, reason in result.skips]
        return (
            result.successes,
            skips,
            [str(failure.value) for _, failure in cast(Any, result.failures)],
        )

    def test_with_all_that_is_needed(self) -> None:
        """The test runs, in CI and elsewhere."""
        for ci in ("", "true"):
            for test in self.decorated("", ci):
                self.assertEqual(self.outcome(test), (1, [], []))

    def test_elsewhere(self) -> None:
        """Without root the test is skipped, and says why."""
        for test in self.decorated("needs root", ""):
            self.assertEqual(self.outcome(test), (0, ["needs root"], []))

    def test_networks_and_user_namespaces(self) -> None:
        """What else a test needs is asked for where there is root, and named."""
        for name in ("networks", "user_namespaces"):
            self.patch(support, f"lacking_for_{name}", lambda: "needs a module")
            for lacking, reason in (("needs root", "needs root"), ("", "needs a module")):
                self.patch(support, "lacking", lambda lacking=lacking: lacking)
                self.patch(support.os, "environ", {})

                class Class(SynchronousTestCase):
                    def test_it(self) -> None:
                        pass

                test = getattr(support, f"needs_{name}")(Class)("test_it")
                self.assertEqual(self.outcome(test), (0, [reason], []))

    def test_tried(self) -> None:
        """What is lacking is found by trying; the reason is the last that was said of it."""
        self.assertEqual(support.tried("a module", "true"), "")
        said = support.tried("a module", "sh", "-c", "echo a >&2; echo b >&2; exit 3")
        self.assertEqual(said, "needs a module: b")
        self.assertEqual(support.tried("a module", "false"), "needs a module: exit status 1")

    def test_in_ci(self) -> None:
        """In CI a test that can't run fails, and says why."""
        for test in self.decorated("needs root", "true"):
            said = "needs root; in CI no test is skipped"
            self.assertEqual(self.outcome(test), (0, [], [said]))
