"""Launches of the newest config, of a config that is not kept, and under a name of one's own."""

import json
from typing import Any

from tests.engine.test_manager import VerbTestCase
from tests.engine.test_recovery import RestoreTestCase
from tests.support import document
from txcontain.container.launch_request import LaunchRequest, read_launch_request
from txcontain.engine import configs
from txcontain.engine.manager import REMOVE_AFTER
from txcontain.errors import ConfigInUse, InstanceExists, MachineAtFault, NoSuchConfig
from txcontain.runtime.instance import Instance

WHOLE = json.loads(document(name="job"))


class AskedTestCase(VerbTestCase):
    """A test of launches as POST /instances asks for them."""

    def launch_as(self, **asked: Any) -> Instance:
        """The instance of a launch."""
        return self.now(self.manager.launch_as_asked(read_launch_request(asked)))


class NewestTests(AskedTestCase):
    """Without a version."""

    def test_newest(self) -> None:
        """The newest minor of the newest major is launched, or of the major that is named."""
        for major, minor in (("1", "9"), ("1", "10"), ("2", "1")):
            self.add(major=major, minor=minor)
        self.assertEqual(self.launch_as(config="web").spec.file_name, "web-2-1.cfg")
        self.assertEqual(self.launch_as(config="web", major="1").spec.file_name, "web-1-10.cfg")
        asked = LaunchRequest("web", "3")
        self.refused(self.manager.launch_as_asked(asked), NoSuchConfig)


class NameTests(AskedTestCase):
    """Under a name of one's own."""

    def test_named(self) -> None:
        """The instance has the name, in its folder and its plan, and is found by it."""
        self.add()
        instance = self.launch_as(config="web", instance="front")
        self.assertEqual((instance.name, self.names()), ("front", ["front"]))
        self.assertIn("front", self.folders("instances"))
        self.assertIn(("hostname", {"name": "front"}), self.init.plan)

    def test_again(self) -> None:
        """The second launch is refused and says who has the name, also if that has ended."""
        self.add()
        self.launch_as(config="web", instance="front")
        asked = read_launch_request({"config": "web", "instance": "front"})
        error = self.refused(self.manager.launch_as_asked(asked), InstanceExists)
        self.assertIn("it is of web-1-01.cfg, and running", error.chain)
        self.init.end()
        error = self.refused(self.manager.launch_as_asked(asked), InstanceExists)
        holder = {"instance": "front", "name": "web", "major": "1", "minor": "01", "state": "ended"}
        self.assertEqual(error.details, {"holder": holder})
        self.now(self.manager.destroy("front"))
        self.assertEqual(self.launch_as(config="web", instance="front").name, "front")

    def test_at_the_same_time(self) -> None:
        """Of two launches under one name only one succeeds, however slow the first is."""
        self.add()
        asked = read_launch_request({"config": "web", "instance": "front"})
        both = [self.start(self.manager.launch_as_asked(asked)) for _ in range(2)]
        self.successResultOf(both[0])
        self.failureResultOf(both[1], InstanceExists)
        self.assertEqual(self.names(), ["front"])

    def test_prepared(self) -> None:
        """A name that was drawn for a launch to come, or whose record can't be read, is taken."""
        self.add()
        self.manager.pool.prepared.names.add("drawn")
        self.manager.unread.append("unread")
        for name in ("drawn", "unread"):
            asked = LaunchRequest("web", instance=name)
            error = self.refused(self.manager.launch_as_asked(asked), InstanceExists)
            self.assertIn(f"the name {name} is in use", str(error))
        self.manager.pool.prepared.names.clear()

    def test_failed(self) -> None:
        """The name of a launch that failed is free again."""
        self.add()
        self.reactor.works = False
        asked = LaunchRequest("web", instance="front")
        launched = self.start(self.manager.launch_as_asked(asked))
        self.init.fail(call="unshare", errno=1)
        self.reactor.advance(0)
        self.failureResultOf(launched, MachineAtFault)
        self.reactor.works = True
        self.assertEqual(self.launch_as(config="web", instance="front").name, "front")


class InlineTests(AskedTestCase):
    """Of a config that is not kept."""

    def test_inline(self) -> None:
        """It is launched as a kept one is, and nothing is kept of it but its instance's record."""
        instance = self.launch_as(config=WHOLE)
        self.assertRegex(instance.name, "^job-[0-9a-f]{8}$")
        self.assertEqual((instance.spec.name, self.manager.configs.names()), ("job", []))

    def test_in_use(self) -> None:
        """A kept config is in use by those that were launched from it and have not ended."""
        self.add(name="job")
        self.launch_as(config=WHOLE)
        self.assertEqual(configs.users(self.manager), {})
        kept = self.launch_as(config="job")
        error = self.refused(configs.remove(self.manager, "job-1-01.cfg"), ConfigInUse)
        self.assertEqual(error.details, {"instances": [kept.name]})
        self.assertIn(kept.name, str(error))
        self.init.end()
        self.now(configs.remove(self.manager, "job-1-01.cfg"))
        self.assertEqual(self.events()[-1], "config: job-1-01.cfg was removed")
        self.refused(configs.remove(self.manager, "job-1-01.cfg"), NoSuchConfig)


class RemovalTests(AskedTestCase, RestoreTestCase):
    """Instances that are removed when they have ended."""

    def test_removed(self) -> None:
        """It is removed some seconds after its end, in which its exit can be asked for."""
        instance = self.launch_as(config=WHOLE, remove=True)
        self.init.end()
        self.reactor.advance(REMOVE_AFTER - 0.1)
        self.assertEqual((instance.state, instance.ending), ("ended", False))
        self.reactor.pump([0.1] * 20)
        self.assertNothingLeft()

    def test_destroyed_before(self) -> None:
        """It can be destroyed before, or while it runs; then nothing more is done later."""
        for ended in (True, False):
            instance = self.launch_as(config=WHOLE, remove=True)
            if ended:
                self.init.end()
            destroyed = self.start(self.manager.destroy(instance.name))
            self.reactor.pump([0.1] * 30)
            self.successResultOf(destroyed)
            self.assertNothingLeft()
        self.reactor.advance(REMOVE_AFTER)
        self.flushLoggedErrors()

    def test_the_next_manager(self) -> None:
        """A manager that ends leaves the removal to the next, which knows the instance's marks."""
        labels = {"team": "shop"}
        self.launch_as(config=WHOLE, remove=True, instance="job", labels=labels)
        self.reactor.advance(2)
        self.next_manager()
        instance = self.manager.instances["job"]
        self.assertEqual((instance.inline, instance.remove), (True, True))
        self.assertEqual(instance.standing["labels"], labels)
        self.init.end()
        self.reactor.advance(2)
        self.manager.pause()
        self.next_manager()
        self.assertEqual(self.states(), {"job": "ended"})
        self.reactor.pump([REMOVE_AFTER, *[0.1] * 20])
        self.assertEqual((self.states(), self.folders("instances")), ({}, []))
