"""Secrets over HTTP, on a fake machine."""

import json

from tests.api.test_resources import WebTestCase


class SecretTests(WebTestCase):
    """/secrets and what is below it."""

    def test_secrets(self) -> None:
        """A secret is set and set again, listed by its name with who has it, and removed."""
        for content in (b"old", b"\0new"):
            self.assertEqual(self.ask("PUT", "/secrets/db", content), (200, "OK", b""))
        instance = self.launch(secrets=["db /run/db"])
        self.assertEqual(
            self.get("/secrets"), {"secrets": [{"name": "db", "instances": [instance.name]}]}
        )
        status, _, body = self.ask("DELETE", "/secrets/db")
        problem = json.loads(body)
        self.assertEqual((status, problem["type"]), (409, "urn:txcontain:secret-in-use"))
        self.assertEqual(problem["instances"], [instance.name])
        self.init.end()
        self.assertEqual(self.ask("DELETE", "/secrets/db/"), (200, "OK", b""))
        self.assertEqual(self.ask("DELETE", "/secrets/db")[0], 404)

    def test_not_told(self) -> None:
        """There is no way to read one."""
        self.ask("PUT", "/secrets/db", b"secret")
        for method in ("GET", "HEAD", "POST"):
            status, _, body = self.ask(method, "/secrets/db")
            self.assertEqual((status, body), (405, b""))

    def test_refused(self) -> None:
        """A bad name, an empty secret and a long one are refused, and not quoted."""
        for path, content in (
            ("/secrets/..%2fdb", b"secret"),
            ("/secrets/db", b""),
            ("/secrets/db", b"secret" * 11_000),
            ("/secrets/db", b"secret" * 200_000),
        ):
            status, phrase, body = self.ask("PUT", path, content)
            self.assertEqual((status, phrase), (409, "Bad Request"))
            self.assertNotIn(b"secretsecret", body)
