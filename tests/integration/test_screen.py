"""The web page, in a real browser."""

from __future__ import annotations

from typing import Any

from tests.integration.browser import NARROW, WIDE, BrowserCase
from tests.integration.test_access import AccessCase

SERVER = """\
#!/bin/sh
echo ready
exec sleep 1000
"""
FAILS = """\
#!/bin/sh
exit 3
"""


class OverviewTests(BrowserCase):
    """All instances at a glance."""

    def test_live(self) -> None:
        """What happens is seen at once: a launch, an end with its reason, a removal."""
        page = self.open()
        page.get_by_text("Nothing runs yet").wait_for()
        name = self.launch(**self.job(SERVER))
        row = page.get_by_role("row").filter(has_text=name)
        row.get_by_text("running").wait_for()
        failed = self.launch(**self.job(FAILS))
        page.get_by_role("row").filter(has_text=failed).get_by_text("failed").wait_for()
        page.get_by_text("exit status 3").wait_for()
        self.ask("DELETE", f"/destroy/{name}")
        row.wait_for(state="detached")

    def test_manager_killed(self) -> None:
        """A manager that is gone is told; with the next one the page goes on, without a gap."""
        name = self.launch(**self.job(SERVER))
        page = self.open()
        page.get_by_text(name).wait_for()
        self.manager.kill()
        self.manager.wait()
        page.get_by_text("trying again").wait_for()
        self.start()
        other = self.launch(**self.job(SERVER))
        page.get_by_text("live").wait_for()
        page.get_by_text(other).wait_for()
        page.get_by_role("row").filter(has_text=name).get_by_text("found again").wait_for()

    def test_keys(self) -> None:
        """The keyboard is enough: to move, to filter, to learn the keys."""
        launched = [self.launch(**self.job(SERVER)) for _ in range(3)]
        page = self.open()
        page.get_by_text(launched[2]).wait_for()
        names = page.locator(".row .name a").all_inner_texts()
        self.assertEqual({*names}, {*launched})
        page.keyboard.press("j")
        page.keyboard.press("j")
        self.assertIn(names[1], page.locator(".row.selected").inner_text())
        page.keyboard.press("k")
        self.assertIn(names[0], page.locator(".row.selected").inner_text())
        page.keyboard.press("/")
        page.keyboard.type(names[2])
        page.get_by_text(names[0]).wait_for(state="detached")
        page.keyboard.press("Escape")
        page.keyboard.press("?")
        page.get_by_role("dialog").get_by_text("all keys").wait_for()
        page.keyboard.press("Escape")
        page.get_by_role("dialog").wait_for(state="detached")

    def test_accessible(self) -> None:
        """Wide and narrow, light and dark, axe-core finds nothing."""
        self.launch(**self.job(SERVER))
        self.launch(**self.job(FAILS))
        for size in (WIDE, NARROW):
            for scheme in ("light", "dark"):
                page = self.open(size=size, scheme=scheme)
                page.get_by_text("failed", exact=True).wait_for()
                self.assert_accessible(page)


class SignInTests(BrowserCase, AccessCase):
    """The page of a manager that asks for tokens."""

    options: tuple[str, ...] = ("--tokens", "tokens")

    def ask(self, *request: Any, **headers: str) -> Any:
        """Ask as the holder of a token."""
        return super().ask(*request, Authorization="Bearer s3cret", **headers)

    def sign_in(self, page: Any, token: str, keep: bool = False) -> None:
        """Fill in the form."""
        page.get_by_label("Token").fill(token)
        if keep:
            page.get_by_label("Keep it").check()
        page.get_by_role("button", name="Sign in").click()

    def test_sign_in(self) -> None:
        """Without a token there is a form and no data; with one, all; a wrong one is told."""
        name = self.launch(**self.job(SERVER))
        page = self.open()
        page.get_by_label("Token").wait_for()
        self.assert_accessible(page)
        self.assertNotIn(name, page.content())
        self.sign_in(page, "wrong")
        page.get_by_text("does not know this token").wait_for()
        self.sign_in(page, "s3cret")
        page.get_by_text(name).wait_for()
        page.reload()
        page.get_by_label("Token").wait_for()
        self.sign_in(page, "0ther", keep=True)
        page.get_by_text("live, read-only").wait_for()
        page.reload()
        page.get_by_text(name).wait_for()
        self.write_tokens(ann=("write", "s3cret"))
        page.reload()
        page.get_by_label("Token").wait_for()
