"""The web page's files: who gets them, with which headers, and what they are made of."""

import gzip
import json
import re
from hashlib import sha256
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.api.test_access import TokenCase
from tests.api.test_server import SiteCase
from txcontain.api import page
from txcontain.api.access import Keys, Tokens, token_of_websocket
from txcontain.api.page import FILES, FOLDER, KINDS
from txcontain.api.server import ApiSite
from txcontain.engine.this_host import ThisHost

BROWSER = "Accept: text/html,application/xhtml+xml,*/*;q=0.8"
VENDOR = FOLDER / "vendor"
HEAVIEST = 450_000  # bytes of all files together
HEAVIEST_PACKED = 150_000  # the same, as they travel
# What makes code or markup of a text, or would not pass the page's own policy.
DANGEROUS = (
    r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b|new Function|https?://|<script>"
)


class PageCase(SiteCase):
    """The server, asked as a browser asks."""

    def ask(self, method: str, path: str, *headers: str, **options: Any) -> tuple[str, bytes]:
        """Send a request, with the one header that each has to have."""
        return super().ask(method, path, "Host: localhost", *headers, **options)


class FilesTests(PageCase):
    """What a browser is given."""

    def test_page(self) -> None:
        """A browser gets the page at the root: nothing inline, nothing foreign, in no frame."""
        head, body = self.ask("GET", "/", BROWSER)
        self.assertTrue(head.startswith("HTTP/1.1 200"), head)
        self.assertIn(b'src="/ui/main.js"', body)
        (policy,) = re.findall(r"^Content-Security-Policy: (.*)\r?$", head, re.MULTILINE)
        for part in ("default-src 'none'", "script-src 'self'", "frame-ancestors 'none'"):
            self.assertIn(part, policy)
        self.assertNotIn("unsafe", policy)
        self.assertIn("X-Content-Type-Options: nosniff", head)

    def test_programs(self) -> None:
        """A program gets at the root what it always got: 404, and nothing else."""
        for method, header in (("GET", "Accept: */*"), ("GET", "X: y"), ("POST", BROWSER)):
            head, body = self.ask(method, "/", header)
            self.assertTrue(head.startswith("HTTP/1.1 404"), head)
            self.assertEqual(body, b"")

    def test_files(self) -> None:
        """Each file is served as what it is; what is no file of the page is not there."""
        for raw, path in FILES.items():
            name = raw.decode()
            head, body = self.ask("GET", f"/ui/{name}")
            self.assertIn(f"Content-Type: {KINDS[path.suffix].decode()}", head)
            self.assertEqual(body, path.read_bytes(), name)
        for name in (
            "",
            "nothing.js",
            "vendor",
            "vendor/manifest.json",
            "../api/page.py",
            "%2e%2e/api/page.py",
        ):
            head, body = self.ask("GET", f"/ui/{name}")
            self.assertTrue(head.startswith("HTTP/1.1 404"), name)
            self.assertEqual(body, b"")

    def test_unchanged(self) -> None:
        """A file that the browser has already is not sent again."""
        head, _ = self.ask("GET", "/ui/main.js")
        (tag,) = re.findall(r"ETag: (\S+)", head, re.IGNORECASE)
        head, body = self.ask("GET", "/ui/main.js", f"If-None-Match: {tag}")
        self.assertTrue(head.startswith("HTTP/1.1 304"), head)
        self.assertEqual(body, b"")

    def test_packed(self) -> None:
        """A browser that takes gzip gets it."""
        head, body = self.ask("GET", "/ui/main.js", "Accept-Encoding: gzip, br")
        self.assertIn("Content-Encoding: gzip", head)
        self.assertEqual(gzip.decompress(body), FILES[b"main.js"].read_bytes())

    def test_foreign(self) -> None:
        """The page is refused as the API is: under another name, and to other sites' pages."""
        for header in ("Sec-Fetch-Site: cross-site", "Origin: http://evil.example"):
            head, _ = self.ask("GET", "/ui/main.js", header)
            self.assertTrue(head.startswith("HTTP/1.1 403"), header)


class StrangersTests(TokenCase, PageCase):
    """What someone without a token gets."""

    def setUp(self) -> None:
        PageCase.setUp(self)
        TokenCase.setUp(self)
        self.site = ApiSite(ThisHost(self.manager), access=Keys(Tokens(self.path), False))

    def test_files_only(self) -> None:
        """The page's files, to sign in with; and of all the rest nothing."""
        self.assertEqual(self.status("GET", "/", BROWSER), 200)
        self.assertEqual(self.status("GET", "/ui/main.js"), 200)
        for path in ("/", "/list", "/whoami", "/instances", "/ui", "/ui2/main.js", "/x/ui/main.js"):
            self.assertEqual(self.status("GET", path), 401, path)

    def test_token_of_a_websocket(self) -> None:
        """A browser can send a token only as a protocol; it is as good as the header."""
        protocols = "v5.channel.k8s.io, base64url.bearer.authorization.k8s.io.czNjcmV0"  # s3cret
        self.assertEqual(self.status("GET", "/whoami", f"Sec-WebSocket-Protocol: {protocols}"), 200)
        for wrong in (protocols[:-3], protocols + "==.a", protocols.replace("base64url", "base64")):
            found = token_of_websocket(wrong.encode())
            self.assertNotEqual(found, b"Bearer s3cret", wrong)
        self.assertIsNone(token_of_websocket(None))
        self.assertIsNone(token_of_websocket(b"base64url.bearer.authorization.k8s.io.A"))


class SourcesTests(SynchronousTestCase):
    """What the page is made of."""

    def test_vendored(self) -> None:
        """Each library is what the manifest says, to the byte, and has its licence beside it."""
        libraries = json.loads((VENDOR / "manifest.json").read_text())
        digests = {name: one["sha256"][name] for one in libraries for name in one["files"]}
        found = {path.name: path for path in VENDOR.iterdir() if path.suffix in KINDS}
        self.assertEqual(
            digests, {name: sha256(path.read_bytes()).hexdigest() for name, path in found.items()}
        )
        licences = (VENDOR / "LICENSES.txt").read_text()
        for one in libraries:
            self.assertIn(f"{one['package']} {one['version']}: {one['licence']}", licences)

    def test_weight(self) -> None:
        """All files together are light."""
        read = [page.read(path) for path in FILES.values()]
        self.assertLessEqual(sum(len(content) for content, _, _ in read), HEAVIEST)
        self.assertLessEqual(sum(len(packed) for _, packed, _ in read), HEAVIEST_PACKED)

    def test_nothing_makes_markup_of_text(self) -> None:
        """No module of ours makes code or markup of a text, or asks another host."""
        ours = [path for path in FILES.values() if path.parent == FOLDER and path.suffix != ".svg"]
        self.assertGreater(len(ours), 3)
        for path in ours:
            self.assertEqual(re.findall(DANGEROUS, path.read_text()), [], path.name)
