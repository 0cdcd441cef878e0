"""Launches of the newest config, of a config that is not kept, and under a name of one's own."""

import json
from collections import deque
from typing import Any

from twisted.internet.defer import Deferred

from tests.engine.test_manager import VerbTestCase
from tests.engine.test_recovery import RestoreTestCase
from tests.fakes import FakeLayers
from tests.support import document, make_spec
from txcontain.container.exec_plan import Command
from txcontain.container.launch_request import LaunchRequest, read_launch_request
from txcontain.engine import configs, execs, files, life
from txcontain.engine.disk import prune
from txcontain.engine.manager import REMOVE_AFTER
from txcontain.engine.volumes import users_of
from txcontain.errors import (
    ConfigInUse,
    Error,
    InstanceExists,
    MachineAtFault,
    NoSuchConfig,
    NotRunning,
)
from txcontain.runtime import kept
from txcontain.runtime.instance import Instance
from txcontain.runtime.records import RECORD

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


class FailedTests(AskedTestCase, RestoreTestCase):
    """What stays of a launch that failed."""

    def fail_to_launch(self, **changes: Any) -> Error:
        """The error of a launch under the name "front"."""
        self.reactor.works = False
        asked = read_launch_request({"config": WHOLE, "instance": "front", **changes})
        launched = self.start(self.manager.launch_as_asked(asked))
        self.init.fail(call="unshare", errno=1)
        self.reactor.advance(0)
        self.reactor.works = True
        error = self.failureResultOf(launched, MachineAtFault).value
        assert isinstance(error, Error)
        return error

    def test_replaced(self) -> None:
        """The next launch under its name replaces it, whether that works or fails."""
        for _ in range(2):
            self.fail_to_launch()
            self.assertOnlyRecordsLeft()
        instance = self.launch_as(config=WHOLE, instance="front")
        self.assertEqual(self.states(), {"front": "running"})
        self.assertIs(self.manager.find("front"), instance)

    def test_retried_twice(self) -> None:
        """Of two launches that would replace it at the same time, one succeeds."""
        self.fail_to_launch()
        asked = read_launch_request({"config": WHOLE, "instance": "front"})
        both = [self.start(self.manager.launch_as_asked(asked)) for _ in range(2)]
        self.reactor.pump([0.1] * 20)
        self.successResultOf(both[0])
        self.failureResultOf(both[1], InstanceExists)

    def test_wait(self) -> None:
        """Who waits for its end is told when its record says why, for this manager and the next."""
        self.reactor.works = False
        asked = read_launch_request({"config": WHOLE, "instance": "front"})
        launched, writes = self.start(self.manager.launch_as_asked(asked)), deque[Any]()

        def write(*call: Any) -> Deferred[Any]:
            writes.append((Deferred(), call))
            return writes[-1][0]

        instance = self.manager.find("front")
        waiting = self.start(life.until_it_is_kept(self.manager, instance, instance.end()))
        self.manager.pool.writes = write
        self.init.fail(call="unshare", errno=1)
        self.reactor.pump([0] * 5)
        while not waiting.called:
            self.assertTrue(writes, "nothing is written, and it is not answered")
            done, (function, *arguments) = writes.popleft()
            done.callback(function(*arguments))
            self.reactor.pump([0] * 5)
        error = self.failureResultOf(launched, MachineAtFault).value
        self.assertEqual(self.successResultOf(waiting).reason, str(error))
        with open(instance.path(RECORD)) as file:
            self.assertEqual(json.load(file)["exit"]["reason"], str(error))

    def test_wait_for_one_that_listens(self) -> None:
        """So it is if it ends before it listens, while its last words are read."""
        self.add()
        asked = read_launch_request(
            {"config": {**WHOLE, "startup_env": "PORT=80"}, "instance": "a"}
        )
        launched = self.start(self.manager.launch_as_asked(asked))
        instance = self.manager.find("a")
        waiting = self.start(life.until_it_is_kept(self.manager, instance, instance.end()))
        self.assertNoResult(waiting)
        self.init.end("Done(3)")
        self.reactor.pump([0.1] * 30)
        error = self.failureResultOf(launched).value
        self.assertIn("PID 1 ended before it listened on port 80", str(error))
        self.assertEqual(self.successResultOf(waiting).reason, str(error))

    def test_the_next_manager(self) -> None:
        """Its reason is still known after a restart of the manager, and a reboot."""
        error = self.fail_to_launch()
        for happens in (lambda: None, self.boot):
            happens()
            self.next_manager()
            instance = self.manager.find("front")
            self.assertEqual((instance.state, instance.exit.reason), ("failed", str(error)))
        self.assertEqual(self.folders("instances"), ["front"])

    def test_start(self) -> None:
        """To start it is to launch it again, with a whole config or with the one that is kept."""
        self.add()
        for verb, config in ((life.start, WHOLE), (life.restart, "web")):
            self.fail_to_launch(config=config, labels={"tier": "db"})
            self.now(verb(self.manager, self.manager.find("front")))
            again = self.manager.find("front")
            self.assertEqual((again.state, again.inline), ("running", config is WHOLE))
            self.assertEqual(again.labels, {"tier": "db"})
            self.now(self.manager.destroy("front"))

    def test_start_fails(self) -> None:
        """If its start fails too, it has failed again."""
        self.fail_to_launch()
        failed = self.manager.find("front")
        self.reactor.works = False
        started = self.start(life.start(self.manager, failed))
        self.init.fail(call="unshare", errno=1)
        self.reactor.advance(0)
        self.failureResultOf(started, MachineAtFault)
        self.assertOnlyRecordsLeft()
        self.assertIsNot(self.manager.find("front"), failed)

    def test_stop(self) -> None:
        """There is nothing to stop, and no command runs in it."""
        self.fail_to_launch()
        instance = self.manager.find("front")
        self.assertEqual(
            self.now(life.stop(self.manager, instance)), ["front does not run: it is failed"]
        )
        error = self.refused(execs.start(self.manager, instance, Command(("ls",))), NotRunning)
        self.assertEqual(error.chain[0], "front was never up: its launch failed")

    def test_files(self) -> None:
        """It has no files."""
        self.fail_to_launch()
        reading = files.read(self.manager, self.manager.find("front"), "/x")
        error = self.refused(reading, NotRunning)
        self.assertEqual(error.chain[0], "front has no files: its launch failed")

    def test_lets_go(self) -> None:
        """Its layers, its ids, its secrets and its volumes are no longer in use."""
        self.fail_to_launch(config={**WHOLE, "volumes": ["data /data"], "user_namespace": True})
        instance = self.manager.find("front")
        self.assertTrue(set(instance.layers).isdisjoint(self.manager.layers_in_use()))
        self.assertEqual(users_of("data", [instance]), [])
        other = self.launch_as(config={**WHOLE, "user_namespace": True})
        self.assertEqual(other.ids, instance.ids)

    def test_destroyed(self) -> None:
        """It can be destroyed, and prune removes it."""
        self.fail_to_launch()
        self.now(self.manager.destroy("front"))
        self.assertNothingLeft()
        self.fail_to_launch()
        self.now(prune(self.manager, dry_run=False))
        self.assertNothingLeft()

    def test_bound(self) -> None:
        """It counts among the ended ones that are kept."""
        self.manager.keep_ended = 1
        ended = self.launch_as(config=WHOLE)
        self.init.end()
        self.reactor.advance(1)
        self.fail_to_launch()
        self.reactor.pump([0.1] * 20)
        self.assertNotIn(ended.name, self.manager.instances)
        self.assertOnlyRecordsLeft()

    def test_none_is_kept(self) -> None:
        """Nothing is kept if no ended one is, or if the launch asked for its removal."""
        self.fail_to_launch(remove=True)
        self.assertNothingLeft()
        self.manager.keep_ended = 0
        self.fail_to_launch()
        self.reactor.pump([0.1] * 20)
        self.assertNothingLeft()

    def test_disk_full(self) -> None:
        """If its reason can't be written, all of it is removed."""
        self.patch(kept, "write_soon", no_space)
        asked = read_launch_request({"config": WHOLE, "instance": "front"})
        self.refused(self.manager.launch_as_asked(asked), MachineAtFault)
        self.assertNothingLeft()


def no_space(*_: Any) -> None:
    """Write to a full disk."""
    raise OSError(28, "No space left on device")


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


class AtOnceTests(AskedTestCase):
    """Launches at the same time."""

    def test_one_image(self) -> None:
        """A launch that is done lets go of its own layers, not of another's that look the same."""
        unpacked: Deferred[str] = Deferred()
        get = FakeLayers.get

        async def get_slowly(layers: FakeLayers, folder: str, name: str) -> str:
            return await unpacked if name == "slow.tar" else await get(layers, folder, name)

        self.patch(FakeLayers, "get", get_slowly)
        asked = {"config": {**WHOLE, "mounts": ["slow.tar /slow READ"]}}
        slow = self.start(self.manager.launch_as_asked(read_launch_request(asked)))
        quick = self.launch_as(config=WHOLE)
        self.now(self.manager.destroy(quick.name))
        self.assertEqual(self.manager.layers_in_use() & {*quick.layers}, {*quick.layers})
        unpacked.callback("/slow")
        self.reactor.advance(1)
        self.assertTrue(self.successResultOf(slow).running)


class StreamTests(AskedTestCase):
    """Launches for one connection each."""

    def test_passed(self) -> None:
        """The connection is passed to the init with the plan; to no other init is anything."""
        config = make_spec(per_connection=True, command=["cat"])
        self.now(self.manager.launch_as_asked(LaunchRequest(config, stream=42, remove=True)))
        self.assertEqual(self.init.passed, (42,))
        self.assertEqual([op for op, _ in self.init.plan[-2:]], ["stream", "exec"])
        self.launch_as(config=WHOLE, remove=True)
        self.assertEqual(self.init.passed, ())

    def test_once(self) -> None:
        """A later start is passed nothing: the number may be that of another file by then."""
        config = make_spec(per_connection=True, command=["cat"])
        launch = self.manager.launch_as_asked(LaunchRequest(config, stream=42))
        instance = self.now(launch)
        self.init.end()
        self.reactor.advance(1)
        self.now(instance.start())
        self.assertEqual(self.init.passed, ())


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
