"""A real browser for a test, and a manager for it to look at."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tests.integration.harness import PROJECT, ManagerCase, wait_until
from tests.support import browser, needs_browser

PICTURES = PROJECT / "docs/pictures"
SECONDS = 60  # for what the page does within one if the machine is idle
WIDE, NARROW = (1600, 900), (400, 860)
# What axe-core is asked for: all rules of WCAG 2.2, levels A and AA.
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
# What the browser says of a style that our policy keeps out (see shell.js).
EXPECTED = re.compile(r"Content Security Policy|Failed to load resource|net::ERR|WebSocket")


@needs_browser
class BrowserCase(ManagerCase):
    """A test that looks at the manager's page. Nothing in it may fail unseen."""

    _browser: Any = None

    def open(
        self, address: str = "", size: tuple[int, int] = WIDE, scheme: str = "light", **more: Any
    ) -> Any:
        """A page of the manager's, as someone new sees it."""
        width, height = size
        context = self.chromium().new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme, **more
        )
        context.set_default_timeout(1000 * SECONDS)
        self.addCleanup(context.close)
        page = context.new_page()
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", self._said)
        page.goto(f"{self.url}/{address}")
        return page

    def chromium(self) -> Any:
        """The browser. It ends with the test, as what drives it keeps asyncio's event loop running.

        Beside that the tests of networks can't run theirs.
        """
        from playwright.sync_api import sync_playwright

        if self._browser is None:
            playwright = sync_playwright().start()
            self.addCleanup(playwright.stop)
            options = ["--disable-gpu", "--disable-dev-shm-usage"]
            launch = playwright.chromium.launch
            self._browser = launch(executable_path=browser(), args=options)
            self.addCleanup(self._browser.close)
        return self._browser

    def go(self, page: Any, address: str) -> None:
        """Go to another view, as a link does, and wait until it is drawn."""
        page.evaluate(
            """address => new Promise((done) => {
                const before = location.href;
                addEventListener("hashchange", done, {once: true});
                location.hash = address;
                if (location.href === before) done();
            })""",
            address,
        )

    def setUp(self) -> None:
        """Start the manager."""
        self.complaints: list[str] = []
        super().setUp()
        self.addCleanup(lambda: self.assertEqual(self.complaints, []))

    def _said(self, message: Any) -> None:
        if message.type in ("error", "warning") and not EXPECTED.search(message.text):
            self.complaints.append(message.text)

    def assert_accessible(self, page: Any) -> None:
        """Fail if axe-core finds anything, or if something sticks out."""
        import axe_playwright_python

        source = Path(axe_playwright_python.__file__).with_name("axe.min.js").read_text()
        page.evaluate(source)
        found = page.evaluate(
            "rules => axe.run(document, {runOnly: rules, resultTypes: ['violations']})", RULES
        )
        said = [
            f"{one['id']}: {node['html'][:150]} {node['failureSummary'][:300]}"
            for one in found["violations"]
            for node in one["nodes"][:3]
        ]
        self.assertEqual(said, [], page.url)
        self.assert_fits(page)

    def assert_fits(self, page: Any) -> None:
        """Fail if the page is wider than its window."""
        wider = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        self.assertLessEqual(page.evaluate(wider), 0, f"{page.url} is wider than its window")

    def assert_shows_where_it_is(self, page: Any) -> None:
        """Fail if what leads to the view that is seen stays cut off."""
        cut = """() => [...document.querySelectorAll("nav [aria-current]")].filter((link) => {
            const [one, box] = [link, link.parentNode].map((it) => it.getBoundingClientRect());
            return one.left < box.left - 1 || one.right > box.right + 1;
        }).map((link) => link.textContent)"""
        wait_until(lambda: page.evaluate(cut) == [], f"no link to {page.url} is cut off")

    def warm(self) -> int:
        """How many inits wait for a plan."""
        return int(self.ask("GET", "/host").json["pool"]["warm"])

    def picture(self, page: Any, name: str, seconds: float = 1) -> None:
        """Take a picture for the documents after some seconds, if that is wanted."""
        if os.environ.get("SCREENSHOTS"):
            page.wait_for_timeout(1000 * seconds)
            page.screenshot(path=PICTURES / f"screen-{name}.png")


def of_instance(name: str, view: str = "") -> str:
    """The address of a view of an instance."""
    return f"#/instance/{quote(name)}{view}"
