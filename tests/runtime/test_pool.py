"""Warm inits: handed out first, filled up later, let go in the end."""

import os
import subprocess
import sys
from typing import Any

from twisted.internet.defer import Deferred

from tests.fakes import MachineTestCase, make_pool
from tests.support import make_spec
from txcontain.container.plan import INIT, MONITOR
from txcontain.errors import MachineAtFault
from txcontain.host.cgroups import Cgroups
from txcontain.runtime import pool
from txcontain.runtime.pool import CONNECT_WITHIN, compile_program
from txcontain.runtime.prepared import new_name
from txcontain.runtime.refill import LATELY
from txcontain.runtime.warm import REFILL_AFTER, RETRY_AFTER

BASE_PLAN = [("unshare", {"namespaces": ["mount"]})]
PLAN = [*BASE_PLAN, ("exec", {"path": "/run.sh"})]


class FakeBlueprint:
    """Its plans are the base plan, the image, and the instance's own."""

    def __init__(self, name: Any, image: Any, writable: Any) -> None:
        self.spec = make_spec(name=name)
        self.image, self.writable = image, writable
        self.early = self

    def plan(self, name: Any) -> Any:
        return [
            *BASE_PLAN,
            ("root_overlay", {"lower": [self.image], "upper": name if self.writable else ""}),
            ("hostname", {"name": name}),
            ("exec", {"path": "/run.sh"}),
        ]


class PoolTestCase(MachineTestCase):
    """A test of a pool of some size."""

    def make(self, **options: Any) -> Any:
        """A pool that has been started, and has warmed its first inits."""
        pool = make_pool(self.reactor, self.folder, base_plan=BASE_PLAN, **options)
        pool.start()
        self.reactor.advance(0)
        return pool

    @property
    def living(self) -> Any:
        """The inits that have not ended."""
        return [init for init in self.reactor.inits if init.monitor in self.kernel.living]


class ColdTests(PoolTestCase):
    """An init that is spawned when it is needed."""

    def test_size_0(self) -> None:
        """A pool of size 0 spawns an init only when one is taken."""
        pool = self.make(size=0)
        self.assertEqual(self.reactor.inits, [])
        child = self.successResultOf(pool.take(PLAN))
        self.reactor.advance(100)
        self.assertEqual([init.folder for init in self.reactor.inits], [child.folder])

    def test_command(self) -> None:
        """The monitor is run in new namespaces, and it runs the init by its path."""
        self.make(size=0).take(PLAN)
        _, *arguments = self.init.arguments
        self.assertEqual(arguments[:4], ["unshare", "--pid", "--uts", "--ipc"])
        self.assertEqual(arguments[4:8], ["/bin/sh", MONITOR, "/dev/null", self.init.folder])
        self.assertEqual(
            arguments[11:16],
            ["-I", "-S", "-B", f"{self.folder}/init.pyc", f"{self.folder}/init.sock"],
        )
        self.assertEqual(arguments[16], self.init.token)

    def test_compiled(self) -> None:
        """What an init runs is compiled, and Python runs it as a program."""
        path = os.path.join(self.folder, "init.pyc")
        with open(path, "wb") as file:
            file.write(compile_program(INIT))
        command = [sys.executable, "-I", "-S", "-B", path]
        result = subprocess.run(command, capture_output=True, text=True)
        self.assertIn("main() missing 2 required positional arguments", result.stderr)

    def test_pipes_not_held(self) -> None:
        """An init whose output the log process can't hold is not used, and ends."""
        pool = self.make(size=0)
        self.reactor.log_process.silent = True
        taken = pool.take(PLAN)
        self.assertNoResult(taken)
        self.reactor.log_process.say("failed", self.init.token, "Too many open files")
        error = self.failureResultOf(taken, MachineAtFault).value
        self.assertEqual(
            error.chain, ("opening the pipes of a container's output", "Too many open files")
        )
        self.reactor.advance(0)
        self.assertFalse(self.kernel.lives(self.init.process))

    def test_pipes_not_held_any_more(self) -> None:
        """A warm init waits until the log process that replaced a killed one holds its pipes."""
        pool = self.make(size=1)
        self.reactor.log_process.lose()
        self.reactor.log_process.silent = True
        taken = pool.take(PLAN)
        self.reactor.advance(0)
        self.assertNoResult(taken)
        self.reactor.log_process.say("opened", self.init.token)
        self.assertEqual(self.successResultOf(taken).folder, self.init.folder)

    def test_cut_short(self) -> None:
        """What a manager was writing when it was killed is removed when the next one starts."""
        open(os.path.join(self.folder, ".init.pyc.7.tmp"), "w").close()
        self.make(size=0)
        self.assertEqual(sorted(os.listdir(self.folder)), ["init.pyc", "logd.pyc", "slots"])

    def test_disk_full(self) -> None:
        """If there is no room for the compiled program, an init runs its source."""
        self.patch(pool, "write_soon", lambda *_: throw(OSError(28, "No space left on device")))
        self.make(size=0).take(PLAN)
        self.assertEqual(self.init.arguments[15], INIT)

    def test_out_of_the_managers_group(self) -> None:
        """Its monitor is told how to leave the manager's cgroup, which systemd may end."""
        pool = self.make(size=0)
        pool.cgroups = Cgroups(monitors="/groups/monitors/cgroup.procs")
        pool.take(PLAN)
        self.assertEqual(self.init.arguments[7], "/groups/monitors/cgroup.procs")

    def test_python(self) -> None:
        """An init runs a Python that it can't write to, through a descriptor of its own."""
        self.make(size=0).take(PLAN)
        folder = self.kernel.folders[(self.init.descriptors or {})[3]]
        path = os.path.join(folder, self.init.arguments[11].removeprefix("/proc/self/fd/3/"))
        self.assertEqual(path, os.path.realpath(sys.executable))

    def test_clean(self) -> None:
        """It gets nothing of the manager's environment, and no descriptor but these."""
        self.make(size=0).take(PLAN)
        self.assertEqual(self.init.environment, {"LC_ALL": "C"})
        self.assertEqual(set(self.init.descriptors or ()), {0, 1, 2, 3})

    def test_too_slow(self) -> None:
        """One that does not connect in time fails, and its monitor is killed and forgotten."""
        self.reactor.connects = False
        pool = self.make(size=0)
        taken = pool.take(PLAN)
        self.reactor.advance(CONNECT_WITHIN - 1)
        self.assertNoResult(taken)
        self.reactor.advance(1)
        self.failureResultOf(taken, MachineAtFault)
        self.reactor.advance(0)
        self.assertEqual((self.living, os.listdir(pool.run_directories)), ([], []))

    def test_files(self) -> None:
        """Its monitor is told how many files a process may open: as many as the manager might.

        The manager raises its own limits.
        """
        pool = self.make(size=0, files=(512, 4096))
        pool.take(PLAN)
        self.assertEqual(self.init.arguments[9:11], ["512", "4096"])

    def test_connects_too_late(self) -> None:
        """One that connects after it was given up does no harm."""
        self.reactor.connects = False
        taken = self.make(size=0).take(PLAN)
        self.init.stuck = True
        self.reactor.advance(CONNECT_WITHIN)
        self.failureResultOf(taken, MachineAtFault)
        self.init.connect()
        self.init.end("Killed")

    def test_can_not_spawn(self) -> None:
        """If none can be spawned, the error says why, and nothing is left."""
        self.reactor.spawn_error = OSError(11, "Resource temporarily unavailable")
        pool = self.make(size=0)
        error = self.failureResultOf(pool.take(PLAN), MachineAtFault).value
        self.assertIn("a limit on processes", str(error))
        self.assertEqual((os.listdir(pool.run_directories), pool.tokens()), ([], set()))

    def test_tokens(self) -> None:
        """What this manager has spawned is not a stranger, as long as it lives."""
        pool = self.make(size=0)
        os.mkdir(os.path.join(pool.run_directories, "stranger"))
        self.successResultOf(pool.take(PLAN))
        self.assertEqual(pool.tokens(), {"stranger"})


class WarmTests(PoolTestCase):
    """Inits that wait for their plan."""

    def test_first_ones(self) -> None:
        """A pool warms as many inits as its size, one after the other."""
        self.reactor.connects = False
        self.make(size=2)
        self.assertEqual(len(self.reactor.inits), 1)
        self.init.connect()
        self.reactor.advance(0)
        self.assertEqual(len(self.reactor.inits), 2)
        self.init.connect()
        self.reactor.advance(100)
        self.assertEqual(len(self.reactor.inits), 2)

    def test_early_steps(self) -> None:
        """A warm init has done the base plan; a bare one has done nothing, and is a new one."""
        pool = self.make(size=1)
        self.assertEqual(self.init.early_steps, BASE_PLAN)
        self.successResultOf(pool.take([("unshare", {})]))
        self.assertEqual((len(self.reactor.inits), self.init.early_steps), (2, []))

    def test_handed_out_first(self) -> None:
        """A warm init is handed out at once, the oldest first."""
        pool = self.make(size=2)
        taken = [self.successResultOf(pool.take(PLAN)).token for _ in range(2)]
        self.assertEqual(taken, [init.token for init in self.reactor.inits])

    def test_refill(self) -> None:
        """Another takes its place a moment after a launch, also if more launches follow."""
        pool = self.make(size=1)
        for since in (REFILL_AFTER * 0.6, REFILL_AFTER):
            pool.take(PLAN)
            count = len(self.reactor.inits)
            self.reactor.advance(REFILL_AFTER * 0.6)
            self.assertEqual(len(self.reactor.inits) > count, since >= REFILL_AFTER)

    def test_demand(self) -> None:
        """As many are kept warm as were taken lately, up to a bound; later fewer again."""
        pool = self.make(size=1, most=3)
        for _ in range(5):
            self.successResultOf(pool.take(PLAN))
        taken = len(self.living)
        self.reactor.pump([REFILL_AFTER] * 10)
        self.assertEqual(len(self.living), taken + 3)
        self.reactor.pump([LATELY / 4] * 12)
        self.assertEqual(len(self.living), taken + 1)

    def test_dead(self) -> None:
        """A warm init that has died is not handed out; another follows after a while."""
        pool = self.make(size=1)
        dead = self.init
        dead.end("Killed")
        self.assertFalse(os.path.exists(dead.folder))
        self.reactor.advance(RETRY_AFTER - 1)
        self.assertEqual(self.reactor.inits, [dead])
        self.reactor.advance(1)
        self.assertNotEqual(self.successResultOf(pool.take(PLAN)).token, dead.token)

    def test_none_to_be_had(self) -> None:
        """If none can be warmed, it is tried again and again, but never in a hurry."""
        tries = []

        def spawn(*arguments: Any, **options: Any) -> None:
            tries.append(self.reactor.seconds())
            raise OSError(11, "Resource temporarily unavailable")

        self.patch(self.reactor, "spawnProcess", spawn)
        pool = self.make(size=1)
        self.reactor.pump([RETRY_AFTER] * 3)
        self.assertEqual(tries, [0, RETRY_AFTER, 2 * RETRY_AFTER, 3 * RETRY_AFTER])
        self.assertEqual(os.listdir(pool.run_directories), [])

    def test_taken_is_none_of_the_pools(self) -> None:
        """If one that was handed out ends, the pool does not replace it."""
        pool = self.make(size=1)
        child = self.successResultOf(pool.take(PLAN))
        child.on_exit = lambda how: None
        self.reactor.advance(REFILL_AFTER)
        count = len(self.reactor.inits)
        self.reactor.inits[0].end("Done")
        self.reactor.advance(RETRY_AFTER)
        self.assertEqual(len(self.reactor.inits), count)


class PreparedTests(PoolTestCase):
    """Warm inits that have done more than the base plan."""

    def launch(
        self, pool: Any, image: str = "base", stem: str = "web", *, writable: bool = True
    ) -> Any:
        """Launch something as the manager does, and let the pool be filled up again.

        Returns the init that it took.
        """
        blueprint = FakeBlueprint(stem, image, writable)
        leased = pool.warm.lease(blueprint)
        plan = blueprint.plan(leased.reserved if leased else new_name(stem))
        child = self.successResultOf(pool.take(plan, leased))
        child.carry_out(plan)
        pool.prepared.launched(blueprint)
        self.reactor.pump([REFILL_AFTER] * 5)
        return next(init for init in self.reactor.inits if init.token == child.token)

    def warm(self, pool: Any) -> Any:
        """What the warm inits have done, as numbers of steps."""
        return sorted(child.in_advance for child in pool.warm._children)

    def prepared(self) -> Any:
        """The names whose folders were made in advance."""
        return sorted(name for name in os.listdir(self.folder) if "-" in name)

    def test_same_again(self) -> None:
        """When a config is launched again, an init has done all but the exec, by a drawn name."""
        pool = self.make(size=2, most=2)
        self.launch(pool)
        self.assertEqual(self.warm(pool), [1, 1])
        self.launch(pool)
        self.assertEqual(self.warm(pool), [1, 3])
        (name,) = self.prepared()
        self.assertRegex(name, "^web-[0-9a-f]{8}$")
        init = self.launch(pool)
        self.assertEqual(init.early_steps, FakeBlueprint("web", "base", True).plan(name)[:3])
        self.assertEqual((len(self.prepared()), len(pool.prepared.names)), (2, 1))
        self.assertEqual(self.warm(pool), [1, 3])

    def test_lease(self) -> None:
        """No other launch gets what one has leased, until it is given back."""
        pool = self.make(size=2, most=2)
        self.launch(pool)
        self.launch(pool)
        blueprint = FakeBlueprint("web", "base", True)
        leased = pool.warm.lease(blueprint)
        plan = blueprint.plan(leased.reserved)
        self.assertIsNone(pool.warm.lease(blueprint))
        self.assertIsNot(self.successResultOf(pool.take(plan)), leased)
        pool.warm.give_back(leased)
        self.assertIs(pool.warm.lease(blueprint), leased)
        self.assertIs(self.successResultOf(pool.take(plan, leased)), leased)

    def test_lost_lease(self) -> None:
        """One that has ended meanwhile is not given back."""
        pool = self.make(size=2, most=2)
        self.launch(pool)
        self.launch(pool)
        leased = pool.warm.lease(FakeBlueprint("web", "base", True))
        self.init.end("Killed")
        pool.warm.give_back(leased)
        self.assertNotIn(leased, pool.warm._children)

    def test_image_alone(self) -> None:
        """The image that two configs share is mounted in advance, and no step that needs a name."""
        pool = self.make(size=2, most=2)
        self.launch(pool, stem="web", writable=False)
        self.launch(pool, stem="db", writable=False)
        self.assertEqual((self.warm(pool), self.prepared()), ([1, 2], []))
        init = self.launch(pool, stem="web", writable=False)
        self.assertEqual(len(init.early_steps), 2)

    def test_started(self) -> None:
        """After a start another is expected, and nothing is prepared that depends on a name."""
        pool = self.make(size=2, most=2)
        blueprint = FakeBlueprint("web", "base", False)
        self.successResultOf(pool.take(blueprint.plan("mine")))
        pool.prepared.started(blueprint)
        self.reactor.pump([REFILL_AFTER] * 5)
        self.assertEqual((self.warm(pool), self.prepared()), ([1, 2], []))
        child = self.successResultOf(pool.take(blueprint.plan("another")))
        self.assertEqual(child.in_advance, 2)

    def test_turns(self) -> None:
        """If many were prepared for one config, the launches of another find plain ones."""
        pool = self.make(size=2, most=8)
        for _ in range(8):
            self.launch(pool, "base")
        for _ in range(3):
            self.assertGreater(self.launch(pool, "other").child.in_advance, 0)

    def test_other_plans(self) -> None:
        """What is no container's plan takes no warm init, and none is warmed for it."""
        pool = self.make(size=1, most=3)
        count = len(self.living)
        pool.take([("unpack", {})])
        self.reactor.pump([REFILL_AFTER] * 10)
        self.assertEqual(len(self.living), count + 1)

    def test_another_stem(self) -> None:
        """A reserved name fits no other config, whatever its plan; what was prepared is let go."""
        pool = self.make(size=2, most=2)
        self.launch(pool)
        self.launch(pool)
        self.assertEqual(self.launch(pool, stem="db").early_steps, BASE_PLAN)
        self.assertEqual((self.warm(pool), self.prepared()), ([1, 1], []))

    def test_another(self) -> None:
        """For another image there is one that has carried out only the base plan."""
        pool = self.make(size=2, most=2)
        self.launch(pool)
        self.launch(pool)
        self.assertEqual(self.launch(pool, "other").early_steps, BASE_PLAN)
        self.assertEqual((self.warm(pool), self.prepared()), ([1, 1], []))
        self.launch(pool, "other")
        self.assertEqual(self.warm(pool), [1, 3])

    def test_cold(self) -> None:
        """A new init does only the base plan, whatever is expected."""
        pool = self.make(size=0)
        for _ in range(3):
            init = self.launch(pool)
        self.assertEqual((init.early_steps, init.child.in_advance), (BASE_PLAN, 0))
        self.assertEqual(self.prepared(), [])

    def test_expect_nothing(self) -> None:
        """Before an image is removed, all inits that have mounted it are let go."""
        pool = self.make(size=2, most=2)
        self.launch(pool)
        self.launch(pool)
        pool.expect_nothing()
        self.reactor.pump([REFILL_AFTER] * 5)
        self.assertEqual((self.warm(pool), self.prepared()), ([1, 1], []))

    def test_dies(self) -> None:
        """One that dies leaves nothing of what it has prepared."""
        pool = self.make(size=2, most=2)
        self.launch(pool)
        self.launch(pool)
        self.init.end("Killed")
        self.assertEqual((self.prepared(), pool.prepared.names), ([], set()))
        self.reactor.advance(RETRY_AFTER)
        self.assertEqual(len(self.prepared()), 1)

    def test_hangs_up(self) -> None:
        """No launch gets one that has hung up, even before the news of its end."""
        pool = self.make(size=1, most=1)
        self.init.hang_up()
        self.assertEqual(self.warm(pool), [])
        taken = pool.take(PLAN)
        self.assertNotEqual(self.successResultOf(taken).token, self.reactor.inits[0].token)

    def test_hangs_up_when_taken(self) -> None:
        """A launch fails if its init hangs up before it has the plan."""
        child = self.successResultOf(self.make(size=0).take(PLAN))
        self.init.hang_up()
        self.failureResultOf(child.carry_out(PLAN), MachineAtFault)

    def test_ends_while_it_prepares(self) -> None:
        """One that ends half-way through its early steps is replaced."""
        self.reactor.prepares = False
        pool = self.make(size=1, most=1)
        self.init.end("Killed")
        self.reactor.prepares = True
        self.reactor.advance(RETRY_AFTER)
        self.assertEqual(self.warm(pool), [1])

    def test_never_connects(self) -> None:
        """One that does not connect while the pool is filled is replaced after a while."""
        self.reactor.connects = False
        pool = self.make(size=1, most=1)
        self.reactor.connects = True
        self.reactor.advance(CONNECT_WITHIN)
        self.reactor.advance(RETRY_AFTER)
        self.assertEqual(self.warm(pool), [1])
        self.assertEqual(len(self.living), 1)

    def test_cannot_be_done(self) -> None:
        """If early steps fail, they are not tried again and again."""
        pool = self.make(size=2, most=2)
        self.launch(pool)
        self.reactor.prepares = False
        self.launch(pool)
        self.assertEqual(len(self.prepared()), 1)
        self.init.fail()
        self.reactor.prepares = True
        self.reactor.pump([RETRY_AFTER] * 2)
        self.assertEqual((self.warm(pool), self.prepared()), ([1, 1], []))

    def test_no_folder(self) -> None:
        """If no folder can be made for it, nothing is prepared."""
        pool = self.make(size=2, most=2)
        pool.prepared.folder = os.path.join(self.folder, "missing")
        self.launch(pool)
        self.launch(pool)
        self.reactor.pump([RETRY_AFTER] * 2)
        self.assertEqual((self.warm(pool), pool.prepared.names), ([1, 1], set()))

    def test_no_init(self) -> None:
        """If no init can be spawned for it, what was prepared is removed."""
        pool = self.make(size=2, most=2)
        self.launch(pool)
        blueprint = FakeBlueprint("web", "base", True)
        plan = blueprint.plan("web-1")
        self.successResultOf(pool.take(plan)).carry_out(plan)
        pool.prepared.launched(blueprint)
        self.reactor.spawn_error = OSError(11, "Resource temporarily unavailable")
        self.reactor.advance(REFILL_AFTER)
        self.assertEqual((self.prepared(), pool.prepared.names), ([], set()))


class StopTests(PoolTestCase):
    """The manager ends."""

    def test_stop(self) -> None:
        """Warm inits are let go, and nothing is left: no run directory, no call, no descriptor."""
        pool = self.make(size=3)
        stopped = pool.stop()
        self.reactor.pump([0.01] * 3)
        self.successResultOf(stopped)
        self.assertEqual((self.living, os.listdir(pool.run_directories)), ([], []))
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.assertEqual((self.kernel.pidfds, self.kernel.folders), ({}, {}))
        self.assertIsNone(self.reactor.factory)

    def test_prepared(self) -> None:
        """What was prepared for the next launch is gone before the manager is."""
        pool = self.make(size=2)
        for _ in range(2):
            pool.prepared.launched(FakeBlueprint("web", "base", True))
        self.successResultOf(pool.take(PLAN)).carry_out(PLAN)
        self.reactor.pump([REFILL_AFTER] * 3)
        self.assertEqual(len(pool.prepared.names), 1)
        removed: Deferred[Any] = Deferred()
        pool.prepared.remove = lambda path: removed
        stopped = pool.stop()
        self.reactor.pump([0.01] * 3)
        self.assertNoResult(stopped)
        removed.callback(None)
        self.reactor.pump([0.01] * 3)
        self.successResultOf(stopped)
        self.assertEqual(pool.prepared.names, set())

    def test_containers_run_on(self) -> None:
        """Those that have a plan run on."""
        pool = self.make(size=1)
        self.successResultOf(pool.take(PLAN)).carry_out(PLAN)
        self.reactor.advance(0)
        taken = self.reactor.inits[0]
        stopped = pool.stop()
        self.reactor.pump([0.01] * 3)
        self.successResultOf(stopped)
        self.assertEqual((self.living, self.kernel.signals), ([taken], []))

    def test_about_to_be_warm(self) -> None:
        """One that connects only now is let go too."""
        self.reactor.connects = False
        pool = self.make(size=1)
        stopped = pool.stop()
        self.reactor.factory = pool
        self.init.connect()
        self.reactor.pump([0.01] * 3)
        self.successResultOf(stopped)
        self.assertEqual(self.living, [])

    def test_no_more(self) -> None:
        """After it has been stopped, taking one fails because the manager ends."""
        pool = self.make(size=0)
        pool.stop()
        self.failureResultOf(pool.take(PLAN), MachineAtFault)
        self.assertEqual(self.reactor.inits, [])

    def test_stuck(self) -> None:
        """One that does not end does not keep the manager from ending."""
        self.reactor.connects = False
        stopped = self.make(size=1).stop()
        self.reactor.pump([0.1] * 55)
        self.successResultOf(stopped)
        self.assertEqual(self.reactor.getDelayedCalls(), [])


def throw(error: Any) -> None:
    """Raise it, as a function that fails."""
    raise error
