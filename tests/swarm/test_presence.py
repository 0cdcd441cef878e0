"""Images that nodes get before they need them."""

from tests.swarm.docker import FakeDocker, docker_of
from tests.swarm.test_balancer import node
from tests.swarm.test_stacks import stack
from tests.swarm.test_swarm import WEB, SwarmCase
from txcontain import errors
from txcontain.swarm.presence import AFTER, MOST, Presence
from txcontain.swarm.records import Seen

IMAGE = "127.0.0.1:5000/txcontain@sha256:0"
LOOKED, PULLED = f"GET /images/{IMAGE}/json", "POST /images/create"


class PresenceTests(SwarmCase):
    """Two nodes that can be told, and one that can not."""

    def setUp(self) -> None:
        super().setUp()
        self.fakes = FakeDocker(), FakeDocker()
        for number, fake in enumerate(self.fakes):
            fake.node = f"n{number}"
        self.nodes = {one.id: one for one in map(node, range(3))}
        docker = docker_of(self.reactor, *self.fakes)
        self.presence = Presence(self.reactor, docker, self.look)

    async def look(self) -> Seen:
        """What there is."""
        return Seen([], [], self.nodes)

    def asked(self) -> list[list[str]]:
        """What each was asked of images."""
        found = [[one for one in fake.asked if "/images/" in one] for fake in self.fakes]
        for fake in self.fakes:
            fake.asked.clear()
        return found

    def test_pulled(self) -> None:
        """A little later each gets it that lacks it."""
        self.fakes[1].answers[LOOKED] = 200, {"Id": "sha256:1"}
        self.presence.want(IMAGE)
        self.assertEqual(self.asked(), [[], []])
        self.reactor.advance(AFTER)
        self.assertEqual(self.asked(), [[LOOKED, PULLED], [LOOKED]])

    def test_unfit(self) -> None:
        """A node where nothing is to run, or which is down, gets none."""
        for state, availability in (("down", "active"), ("ready", "drain"), ("ready", "pause")):
            self.nodes["n0"] = node(0, state, availability)
            self.presence.want(IMAGE)
            self.reactor.advance(AFTER)
            self.assertEqual([*map(bool, self.asked())], [False, True])

    def test_silent(self) -> None:
        """One that does not answer keeps nobody from the next image, nor does a silent swarm."""
        self.fakes[0].refusals[LOOKED] = self.fakes[0].refusals[PULLED] = 500, "broken"
        self.presence.want(IMAGE)
        self.reactor.advance(AFTER)

        async def fail() -> Seen:
            raise errors.Unavailable("no leader")

        self.presence.look = fail
        self.presence.want("other")
        self.reactor.advance(AFTER)
        self.asked()
        self.presence.look = self.look
        self.presence.want(IMAGE)
        self.reactor.advance(AFTER)
        self.assertEqual(self.asked(), [[LOOKED, PULLED]] * 2)

    def test_many(self) -> None:
        """Only so many wait; each once, and none if the manager is to end."""
        for number in (0, *range(MOST + 1)):
            self.presence.want(f"i{number}")
        self.reactor.advance(AFTER)
        looked = [one for one in self.asked()[0] if one.startswith("GET")]
        self.assertEqual(looked, [f"GET /images/i{number}/json" for number in range(1, MOST + 1)])
        self.presence.want(IMAGE)
        self.now(self.presence.stop())
        self.reactor.advance(AFTER)
        self.assertEqual(self.asked(), [[], []])

    def test_wanted(self) -> None:
        """So does what is launched, if it may be started elsewhere, and what a stack has."""
        self.keep(restart="no")
        self.keep(restart="always", minor="02")
        for begin, is_wanted in (
            (lambda: self.swarm.launch(*WEB), False),
            (lambda: self.swarm.launch("web", "1", "02"), True),
            (lambda: self.swarm.stacks.up(stack(web={})), True),
        ):
            self.fake.asked.clear()
            self.now(begin())
            self.reactor.advance(AFTER)
            self.assertEqual(PULLED in self.fake.asked, is_wanted)
