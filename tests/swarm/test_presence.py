"""Images that nodes get before they need them."""

from typing import Any

from attrs import evolve

from tests.exports.test_documents import subject_of
from tests.swarm.docker import FakeDocker, docker_of
from tests.swarm.test_balancer import node
from tests.swarm.test_swarm import SwarmCase
from txcontain.swarm.mapping import service_of
from txcontain.swarm.presence import AFTER, ASK_EVERY, WITHIN, Presence
from txcontain.swarm.records import Seen

IMAGE = subject_of().image
LOOKED, PULLED = f"GET /images/{IMAGE}/json", "POST /images/create"


def service(image: str = IMAGE, restart: str = "always") -> Any:
    """The service of an instance."""
    return {"Spec": service_of(evolve(subject_of(restart=restart), image=image), "web-1")}


class PresenceTests(SwarmCase):
    """Two nodes that can be told, and one that can not."""

    def setUp(self) -> None:
        super().setUp()
        self.fakes = FakeDocker(), FakeDocker()
        for number, fake in enumerate(self.fakes):
            fake.node = f"n{number}"
        self.nodes = {one.id: one for one in map(node, range(3))}
        self.presence = Presence(self.reactor, docker_of(self.reactor, *self.fakes))
        self.settle(service(image="other"))  # they have said where they are by now

    def settle(self, *services: Any) -> list[list[str]]:
        """Have these; returns what each is asked a little later."""
        for fake in self.fakes:
            fake.asked.clear()
        self.presence.settle(Seen(services or [service()], [], self.nodes))
        self.reactor.advance(AFTER)
        return [fake.asked for fake in self.fakes]

    def test_pulled(self) -> None:
        """Each gets it once, if it lacks it."""
        self.fakes[1].answers[LOOKED] = 200, {"Id": "sha256:1"}
        self.assertEqual(self.settle(), [[LOOKED, PULLED], [LOOKED]])
        self.assertEqual(self.settle(), [[], []])

    def test_again(self) -> None:
        """Where nothing is to run, or what is down, gets none; once it is back, it is asked."""
        for state, availability in (("down", "active"), ("ready", "drain"), ("ready", "pause")):
            self.nodes["n0"] = node(0, state, availability)
            self.assertEqual(self.settle()[0], [])
            self.nodes["n0"] = node(0)
            self.assertEqual(self.settle()[0], [LOOKED, PULLED])

    def test_stays(self) -> None:
        """What is started on no other node need not be there."""
        self.assertEqual(self.settle(service(restart="no")), [[], []])

    def test_silent(self) -> None:
        """One that does not answer keeps the other from nothing; where it is is asked seldom."""
        self.fakes[0].refusals[LOOKED] = self.fakes[0].refusals[PULLED] = 500, "broken"
        self.fakes[1].is_silent = True
        self.assertEqual(self.settle(), [[LOOKED, PULLED], [LOOKED]])
        self.reactor.advance(WITHIN)
        self.presence.docker.managers[1].node = None
        asked = [one for _ in range(round(ASK_EVERY / AFTER)) for one in self.settle()[1]]
        self.assertEqual([one for one in asked if one == "GET /info"], ["GET /info"])

    def test_stop(self) -> None:
        """None is asked when the manager is to end."""
        self.presence.settle(Seen([service()], [], self.nodes))
        self.now(self.presence.stop())
        self.reactor.advance(AFTER)
        self.assertNotIn(LOOKED, self.fakes[0].asked)

    def test_launched(self) -> None:
        """So does what is launched."""
        self.keep(restart="always")
        self.launched()
        for _ in range(2):
            self.swarm.watch.wrote()
            self.now(self.swarm.running())
            self.reactor.advance(AFTER)
        self.assertIn(PULLED, self.fake.asked)
