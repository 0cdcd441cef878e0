"""`txcontain nodes`, against a fake manager in memory."""

import json

from tests.cli.session import Session

NODE = {
    "node": "h1",
    "id": "n1",
    "address": "192.0.2.7",
    "state": "ready",
    "availability": "active",
    "role": "manager",
    "leader": True,
    "engine": "20.10.24",
    "labels": {"disk": "ssd"},
    "instances": 2,
}


class NodesTests(Session):
    """What it prints, and what it asks for."""

    def test_ls(self) -> None:
        """A table with a line for each node, or a document for each."""
        worker = {**NODE, "node": "h2", "leader": False, "role": "worker", "labels": {}}
        self.manager.answers_to("GET /nodes", {"nodes": [NODE, worker]})
        self.assertEqual(self.run_command("nodes"), 0)
        _, first, second = [line.split() for line in self.out.splitlines()]
        where = "192.0.2.7"
        self.assertEqual(first, ["h1", "ready", "active", "leader", where, "2", "disk=ssd"])
        self.assertEqual(second, ["h2", "ready", "active", "worker", where, "2", "-"])

    def test_json(self) -> None:
        """As JSON, a document a line."""
        self.manager.answers_to("GET /nodes", {"nodes": [NODE]})
        self.assertEqual(self.run_command("nodes", "ls", "--json"), 0)
        self.assertEqual(json.loads(self.out), NODE)

    def test_drain(self) -> None:
        """Each node is asked in turn, and named."""
        for verb in ("drain", "activate"):
            for node in ("h1", "h2"):
                self.manager.answers_to(f"POST /nodes/{node}/{verb}")
            self.assertEqual(self.run_command("nodes", verb, "h1", "h2"), 0)
        self.assertEqual(self.out, "h1\nh2\n" * 2)

    def test_label(self) -> None:
        """Labels are given, and taken away."""
        self.manager.answers_to("POST /nodes/h1/labels")
        self.assertEqual(self.run_command("nodes", "label", "h1", "disk=ssd", "old-"), 0)
        ((_, body),) = self.manager.asked
        self.assertEqual(json.loads(body), {"labels": {"disk": "ssd", "old": None}})

    def test_misused(self) -> None:
        """What is no node or no label is refused before anything is asked."""
        for words in (("drain", "a/b"), ("label", "h1", "disk"), ("label", "h1", "=x")):
            raised = self.assertRaises(SystemExit, self.run_command, "nodes", *words)
            self.assertEqual(raised.code, 2)
        self.assertEqual(self.manager.asked, [])
