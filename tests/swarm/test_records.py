"""How the instances of a swarm stand."""

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.swarm.docker import NODE, task
from txcontain.api.instances import OF_SWARM, RECORD
from txcontain.cli.client import RECORD as SHAPE
from txcontain.cli.client import fits
from txcontain.swarm.mapping import INSTANCE
from txcontain.swarm.nodes import read_node
from txcontain.swarm.records import Seen, changes, records

PORT = {"PublishedPort": 8000, "TargetPort": 80, "Protocol": "tcp", "PublishMode": "host"}


def service(name: str) -> dict[str, Any]:
    """A service that is an instance."""
    labels = {INSTANCE: name, "txcontain.name": "a", "txcontain.major": "1", "txcontain.minor": "1"}
    return {
        "ID": name,
        "CreatedAt": "2026-01-01T00:00:01Z",
        "Spec": {"Labels": labels, "EndpointSpec": {"Ports": [PORT]}},
    }


def seen(*tasks: Any, **more: Any) -> Seen:
    """A look at a swarm with one instance, web, and these tasks of it."""
    return Seen([service("web")], tasks, {"n1": read_node(NODE)}, **more)


def at(second: int, *what: str) -> dict[str, Any]:
    """A task of web."""
    return {**task("web", *what), "CreatedAt": f"2026-01-01T00:00:0{second}Z"}


class ChangeTests(SynchronousTestCase):
    """What the journal is told."""

    def test_changes(self) -> None:
        """A start, an end and a move are told, of those that were there before."""
        run, end = at(1, "running"), at(1, "failed", "non-zero exit (3)")
        again, moved = at(2, "running"), at(2, "running", "", "n2")
        for before, after, told in (
            ([run], [run], []),
            ([run], [end], [("web", "ended", "non-zero exit (3), on h1")]),
            ([end], [again, end], [("web", "running", "running, on h1")]),
            ([run], [run, moved], [("web", "running", "running, on n2")]),
            ([run], [], []),
            ([], [run], []),
            ([at(1, "pending")], [at(1, "preparing")], []),
        ):
            self.assertEqual([*changes(seen(*before), seen(*after))], told)

    def test_others(self) -> None:
        """Tasks of services that are no instances are none of ours."""
        other = task("other", "running")
        self.assertEqual([*changes(seen(other), seen({**other, **at(1, "failed")}))], [])


class RecordTests(SynchronousTestCase):
    """The list of all."""

    def test_keys(self) -> None:
        """A record has all keys that one of a single host has, and the commands understand it."""
        for tasks in ([], [at(1, "running")], [at(1, "failed")]):
            (record,) = records(seen(*tasks))
            self.assertEqual([*record], [*RECORD, *OF_SWARM])
            self.assertTrue(fits(record, SHAPE))

    def test_states(self) -> None:
        """The newest task tells how an instance stands, and those before how often it began."""
        ended = at(2, "failed", "task: non-zero exit (3)")
        ended["Status"]["ContainerStatus"] = {"ExitCode": 3}
        rows: tuple[tuple[list[Any], str, str | None, int, str | None], ...] = (
            ([], "starting", None, 0, None),
            ([at(1, "pending")], "starting", "h1", 0, None),
            ([at(1, "running")], "running", "h1", 0, None),
            ([at(2, "running"), at(1, "failed")], "running", "h1", 1, None),
            ([ended], "ended", "h1", 0, "exit status 3"),
            ([at(1, "rejected", "No such image")], "ended", "h1", 0, "No such image"),
        )
        for tasks, state, node, restarts, reason in rows:
            (record,) = records(seen(*tasks))
            found = record["exit"] and record["exit"]["reason"]
            told = record["state"], record["node"], record["restarts"], found
            self.assertEqual(told, (state, node, restarts, reason))

    def test_times_and_ports(self) -> None:
        """Times are those of Docker, and ports are at all addresses of the node."""
        (record,) = records(seen(at(1, "running")))
        self.assertEqual((record["launched"], record["since"]), (1767225601.0, 1767225601.5))
        self.assertEqual(record["ports"], ["0.0.0.0:8000->80/tcp"])
