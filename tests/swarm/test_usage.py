"""What instances of a swarm use, against Dockers in memory."""

from functools import partial
from typing import Any
from urllib.parse import unquote

from treq.testing import StubTreq
from twisted.web.server import NOT_DONE_YET

from tests.api.test_resources import be_known
from tests.swarm.docker import USED, FakeDocker, docker_of, task
from tests.swarm.test_swarm import SwarmCase
from txcontain import errors
from txcontain.api.resources import make_root
from txcontain.swarm.client import ANSWER_WITHIN
from txcontain.swarm.usage import AT_ONCE, NAMED, WITHIN, figures
from txcontain.swarm.watch import AT_ONCE as AT_ONCE_SEEN


class FiguresTests(SwarmCase):
    """What Docker tells, in our words."""

    def test_figures(self) -> None:
        """All that is counted is told, with both versions of cgroups; nothing else is made up."""
        counted = {"memory": 1000, "memory_peak": 2000, "cpu_usec": 5000, "pids": 3}
        moved = {"io_read": 4097, "io_written": 8192}
        private = {"network_received": 11, "network_sent": 22}
        ways: Any = [{"op": "read", "value": 1}, {"op": "write", "value": 2}]
        for told, wanted in (
            (USED, {**counted, **moved, **private}),
            ({"blkio_stats": {"io_service_bytes_recursive": None}, "networks": {}}, {}),
            ({"memory_stats": {}, "cpu_stats": {}, "pids_stats": {}}, {}),
            ({"memory_stats": {"usage": 1}}, {"memory": 1}),
            (
                {"blkio_stats": {"io_service_bytes_recursive": ways}},
                {"io_read": 1, "io_written": 2},
            ),
        ):
            self.assertEqual(figures(told), wanted)


class UsageTests(SwarmCase):
    """What the API tells of it."""

    def setUp(self) -> None:
        super().setUp()
        be_known(self)
        self.keep(limits={"memory": "16M", "cpus": 0.5})
        self.name = self.launched()
        self.http: Any = StubTreq(make_root(self.swarm))

    def get(self, path: str) -> Any:
        """What is answered, and its notes."""
        asked = self.http.get(f"http://localhost{path}")
        self.reactor.pump([0.0, *[0.001] * 50])
        response = self.successResultOf(asked)
        notes = response.headers.getRawHeaders("Txcontain-Note", [])
        return self.successResultOf(response.json()), [unquote(one) for one in notes]

    def at(self, node: str, number: int = 1) -> None:
        """Have instances run at a node that no --docker leads to."""
        for _ in range(number):
            self.launched()
            self.fake.tasks[-1]["NodeID"] = node
        self.swarm.watch.wrote()

    def test_usage(self) -> None:
        """One instance, and all, are told with their limits."""
        used, _ = self.get(f"/instances/{self.name}/stats")
        self.assertEqual(
            (used["instance"], used["memory"], used["pressure"]), (self.name, 1000, {})
        )
        self.assertEqual(used["limits"], {"memory": 16 << 20, "cpus": 0.5, "pids": 1024})
        self.assertEqual(self.get("/stats"), ({"stats": [used]}, []))

    def test_out_of_reach(self) -> None:
        """Those on a node that no --docker leads to are left out and named, up to a number."""
        self.fake.nodes.append({**self.fake.nodes[0], "ID": "n2"})
        self.at("n2")
        told, (note,) = self.get("/stats")
        self.assertEqual([one["instance"] for one in told["stats"]], [self.name])
        self.assertRegex(note, r"^left out: web-\w+ on h1: no --docker leads to the Docker there$")
        self.at("n3", 6)
        _, (note,) = self.get("/stats")
        self.assertIn(", 2 more: no --docker", note)

    def test_other_node(self) -> None:
        """One there is refused, with what to do."""
        self.fake.node = "n7"
        refused = self.refused(self.swarm.usage(self.name), errors.NotInSwarm)
        self.assertIn("`docker stats` there", str(refused))

    def test_of_several(self) -> None:
        """Each Docker is asked of its own; those of one that is silent are left out and named."""
        other = FakeDocker()
        other.node = "n2"
        self.swarm.docker.managers += docker_of(self.reactor, other).managers
        self.at("n2")
        far = self.now(self.swarm.usage(None))
        self.assertEqual(len(far.records), 2)
        self.assertEqual(other.asked[-1], "GET /containers/c1/stats")
        other.is_silent = True
        asked = self.start(self.swarm.usage(None))
        self.reactor.advance(ANSWER_WITHIN)
        told = self.successResultOf(asked)
        self.assertEqual([one["instance"] for one in told.records], [self.name])
        self.assertIn("does not answer within 5 seconds", told.notes[0])

    def test_many(self) -> None:
        """Only some are asked of one Docker at the same time, and all are told in order."""
        names = [self.name, *(self.launched() for _ in range(2 * AT_ONCE))]
        self.reactor.advance(1)  # so that the next look has all of them
        told = self.now(self.swarm.usage(None))
        self.assertEqual([one["instance"] for one in told.records], names)
        self.fake.is_silent = True
        self.fake.asked.clear()
        asked = self.start(self.swarm.usage(None))
        self.reactor.pump([AT_ONCE_SEEN, ANSWER_WITHIN])
        self.assertEqual(self.fake.asked.count("GET /containers/c1/stats"), AT_ONCE)
        told = self.successResultOf(asked)
        self.assertIn(f"left out: {self.name}, ", told.notes[0])
        self.assertIn(f"{2 * AT_ONCE + 1 - NAMED} more", told.notes[0])

    def test_slow(self) -> None:
        """All together has a bound: what was told by then is shown, and the rest is named."""
        names = [self.name, *(self.launched() for _ in range(5 * AT_ONCE))]
        self.reactor.advance(1)
        self.patch(self.fake, "render", partial(self.late, self.fake.render))
        asked = self.start(self.swarm.usage(None))
        http: Any = self.swarm.docker.managers[0].http
        for _ in range(int(WITHIN)):
            self.reactor.advance(1)
            http.flush()
        told = self.successResultOf(asked)
        shown = [one["instance"] for one in told.records]
        self.assertEqual(shown, names[: len(shown)])
        self.assertIn(len(shown), range(AT_ONCE, 5 * AT_ONCE))
        (note,) = told.notes
        self.assertIn(f"left out: {names[len(shown)]}, ", note)
        self.assertIn("unix:/0 does not tell of all within 10 seconds", note)

    def late(self, render: Any, request: Any) -> Any:
        """Answer what is asked of a container only after some seconds."""
        if b"/containers/" not in request.path:
            return render(request)

        def answer() -> None:
            if not request._disconnected:
                request.write(render(request))
                request.finish()

        self.reactor.callLater(3, answer)
        return NOT_DONE_YET

    def test_ended(self) -> None:
        """One that has ended is not told; what Docker refuses otherwise is."""
        self.fake.used = None
        self.assertEqual(self.get("/stats"), ({"stats": []}, []))
        self.refused(self.swarm.usage(self.name), errors.NotRunning)
        self.fake.refusals["GET /containers/c1/stats"] = 500, "broken"
        told, (note,) = self.get("/stats")
        self.assertEqual(told, {"stats": []})
        self.assertIn(f"left out: {self.name}: ", note)
        self.assertIn("broken", note)
        self.refused(self.swarm.usage(self.name), errors.MachineAtFault)

    def test_one_that_ended(self) -> None:
        """One that does not run uses nothing, and its refusal says how it stands."""
        self.fake.tasks = [task(self.fake.tasks[0]["ServiceID"], "complete")]
        self.swarm.watch.wrote()
        self.refused(self.swarm.usage(self.name), errors.NotRunning)
        self.assertEqual(self.get("/stats"), ({"stats": []}, []))
