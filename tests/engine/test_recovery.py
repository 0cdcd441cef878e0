"""Recovery after a restart, and the doctor, on a fake machine."""

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any
from unittest import mock

from hypothesis import given
from hypothesis import strategies as st

from tests.engine.test_manager import VerbTestCase
from tests.fakes import make_manager
from tests.runtime.test_supervised import JSON
from tests.support import document
from txcontain.engine import life, manager
from txcontain.engine.configs import upload
from txcontain.engine.recovery import READ_AGAIN, doctor, restore
from txcontain.runtime import records
from txcontain.runtime.adopted import FOLLOW_AGAIN
from txcontain.runtime.instance import Instance
from txcontain.runtime.phase import Phase
from txcontain.runtime.records import RECORD


def fail_with(number: int) -> None:
    """Fail as a system call does."""
    raise OSError(number, os.strerror(number))


class RestoreTestCase(VerbTestCase):
    """A test of what the next manager does with what the last one left."""

    def next_manager(self) -> Any:
        """Kill the manager and start another; returns what it did."""
        self.reactor.lose_manager()
        self.manager = make_manager(self.reactor, self.folder)
        self.manager.journal.open()
        done = restore(self.manager)
        self.manager.pool.start()
        self.reactor.advance(0)
        return done

    def boot(self) -> None:
        """Reboot the machine: all processes are gone, and new ones may get the old pids."""
        self.kernel.boot = "the next boot"
        self.kernel.working.clear()

    def states(self) -> Any:
        """The state of each instance, by name."""
        return {instance.name: instance.state for instance in self.manager.instances.values()}


class RestoreTests(RestoreTestCase):
    """Every kind of instance that a manager may leave behind."""

    def test_nothing(self) -> None:
        """If nothing was left, nothing is done."""
        self.assertEqual(self.next_manager(), [])

    def test_running(self) -> None:
        """Containers run on, and are listed as before in the same order."""
        before = []
        for minor in range(5):
            self.reactor.advance(1)
            before.append(self.launch(minor=str(minor)).record)
        self.reactor.advance(2)  # when the last one's timeline is kept too
        self.assertEqual(self.next_manager(), [])
        after = [instance.record for instance in self.manager.running()]
        self.assertEqual(plain(after), plain(before))
        self.assertEqual(self.kernel.signals, [])

    def test_health(self) -> None:
        """What is known of an instance's health is kept; if it is damaged, it is asked anew."""
        self.kernel.listening[80] = 1
        instance = self.launch(startup_script="/run.sh", health={"tcp": 80})
        self.reactor.advance(2)
        self.assertTrue(instance.serves)
        self.next_manager()
        found = self.manager.find(instance.name)
        self.assertEqual((found.serves, list(found.checks.results)), (True, []))
        for damaged, status in (("unwell", "starting"), (None, "starting"), ("healthy", "healthy")):
            self.reactor.lose_manager()
            record = json.loads(Path(instance.path("instance.json")).read_text())
            record["health"] = damaged
            Path(instance.path("instance.json")).write_text(json.dumps(record))
            self.next_manager()
            self.assertEqual(self.manager.find(instance.name).health, status)
        for theirs in self.kernel.connected:
            theirs.close()

    def test_unhealthy_meanwhile(self) -> None:
        """What an earlier manager was ending because it was unhealthy is started again."""
        health = {"tcp": 80, "retries": 1, "interval": 1}
        instance = self.launch(startup_script="/run.sh", health=health)
        self.kernel.catching[self.init.process.pid] = [self.init.process]  # it takes its time
        self.reactor.advance(1.2)
        self.assertEqual((instance.health, instance.state), ("unhealthy", "running"))
        self.reactor.lose_manager()
        self.init.end("Done(0)")
        self.next_manager()
        self.reactor.advance(1)
        found = self.manager.find(instance.name)
        self.assertEqual((found.state, found.restarts), ("running", 1))

    def test_private(self) -> None:
        """A private instance keeps its address, and no other gets it."""
        name = self.launch(network="private").name
        self.next_manager()
        self.assertEqual(self.manager.find(name).address, "10.87.0.2")
        self.assertEqual(self.launch(minor="2", network="private").address, "10.87.0.3")

    def test_its_end_is_noticed(self) -> None:
        """The end of an adopted container is noticed, with its status."""
        name = self.launch().name
        self.next_manager()
        self.init.end("Done(3)")
        instance = self.manager.find(name)
        self.assertEqual((instance.state, instance.exit.status), ("ended", 3))
        self.assertEqual(self.events()[-2:], ["running: found again", "ended: exit status 3"])

    def test_it_is_destroyed(self) -> None:
        """An adopted container can be destroyed, and nothing is left."""
        name = self.launch().name
        self.next_manager()
        self.now(self.manager.destroy(name))
        self.assertEqual(self.kernel.signals, [(self.init.process.pid, signal.SIGKILL)])
        self.assertNothingLeft()

    def test_again_and_again(self) -> None:
        """Any number of managers may follow one another."""
        name = self.launch().name
        for _ in range(3):
            self.next_manager()
        self.assertEqual(self.states(), {name: "running"})
        self.now(self.manager.destroy(name))
        self.assertNothingLeft()

    def test_ended_meanwhile(self) -> None:
        """If a container ends while no manager runs, its true status and time are known."""
        name = self.launch().name
        self.reactor.lose_manager()
        self.reactor.advance(7)
        self.init.end("Done(3)")
        self.next_manager()
        instance = self.manager.find(name)
        self.assertEqual((instance.state, instance.exit.status, instance.exit.at), ("ended", 3, 7))
        self.now(self.manager.destroy(name))
        self.assertNothingLeft()

    def test_monitor_killed_too(self) -> None:
        """If no one saw how it ended, the exit says so, and it counts as a failure."""
        name = self.launch().name
        self.reactor.lose_manager()
        self.init.end()
        os.unlink(os.path.join(self.init.folder, "exit"))
        self.next_manager()
        self.assertIn("no one saw how", str(self.manager.find(name).exit))

    def test_reboot(self) -> None:
        """After a reboot, the exit names the reboot, and no process with an old pid is killed."""
        name = self.launch().name
        self.boot()
        self.next_manager()
        instance = self.manager.find(name)
        self.assertEqual(
            (instance.state, instance.exit.reason), ("ended", "ended by a reboot of the machine")
        )
        self.assertEqual(self.kernel.signals, [])

    def test_listens_later(self) -> None:
        """The next manager notices, too, when a container begins to listen."""
        launched = self.begin_launch(startup_env="PORT=8000")
        (name,) = self.names()
        self.next_manager()
        self.assertNoResult(launched)
        self.kernel.listening[8000] = self.init.process.pid
        self.reactor.advance(1)
        self.assertTrue(self.manager.find(name).ready)

    def test_ended_before_a_reboot(self) -> None:
        """If it ended before the reboot, the exit is the one that its monitor wrote."""
        name = self.launch().name
        self.reactor.lose_manager()
        self.init.end("Done(3)")
        self.boot()
        self.next_manager()
        self.assertEqual(self.manager.find(name).exit.status, 3)

    def test_restart_after_a_reboot(self) -> None:
        """With restart "always", it is started again after a reboot."""
        name = self.launch(restart="always").name
        self.boot()
        self.next_manager()
        self.assertEqual(self.states(), {name: "waiting"})
        self.reactor.advance(0.1)
        self.assertEqual(self.states(), {name: "running"})
        self.assertEqual(len(self.reactor.inits), 2)

    def test_restart(self) -> None:
        """If it ended while no manager ran, its restart policy is followed."""
        for words, state in (("Done(1)", "waiting"), ("Done", "ended")):
            name = self.launch(minor=state, restart="on-failure").name
            self.reactor.lose_manager()
            self.init.end(words)
            self.next_manager()
            self.assertEqual(self.states()[name], state)
            self.manager.pause()

    def test_waiting(self) -> None:
        """An instance that waits for its restart goes on waiting, and keeps its count."""
        name = self.launch(restart="always", max_restarts=2).name
        self.init.end("Done")
        self.reactor.advance(0.1)
        self.init.end("Done")
        self.next_manager()
        self.assertEqual((self.states(), self.manager.find(name).restarts), ({name: "waiting"}, 1))
        self.reactor.advance(0.2)  # the delay is not the first one either
        self.init.end("Done")
        self.assertEqual((self.states(), self.manager.find(name).restarts), ({name: "ended"}, 2))

    def test_hardly_any_descriptors(self) -> None:
        """A manager with few descriptors adopts all instances with one each, and reports it."""
        names = {self.launch(minor=str(minor)).name for minor in range(20)}
        self.kernel.most_open = 12
        done = self.next_manager()
        self.assertEqual(dict.fromkeys(names, "running"), self.states())
        self.assertIn("may open 12 files only, which is too few for 20 instances", done[-1])
        self.kernel.most_open = 64
        self.reactor.advance(FOLLOW_AGAIN)
        self.assertEqual(len(self.reactor.readers), 20)
        for init in self.reactor.inits:
            init.end("Done")
        self.assertEqual(set(self.states().values()), {"ended"})

    def test_record_can_not_be_read_yet(self) -> None:
        """If a record can't be read now, its container runs on and is adopted later."""
        name = self.launch(minor="1").name
        with mock.patch.object(records, "read_file", lambda *_: fail_with(5)):
            done = self.next_manager()
            self.assertEqual(len(done), 1)
            self.assertIn(f"can't read the record of {name} yet", done[0])
            self.assertEqual((self.states(), self.kernel.signals), ({}, []))
            self.assertEqual(self.now(doctor(self.manager)), [])
            self.reactor.advance(READ_AGAIN)
            self.assertEqual(self.states(), {})
        self.reactor.advance(READ_AGAIN)
        self.assertEqual(self.states(), {name: "running"})
        self.now(self.manager.destroy(name))
        self.assertNothingLeft()

    def test_one_that_breaks_it(self) -> None:
        """If adopting one instance fails by a bug, the others are adopted all the same."""
        first, second = self.launch(minor="1").name, self.launch(minor="2").name

        class Breaking(Instance):
            def recall(self, record: Any) -> None:
                if self.name == first:
                    raise ZeroDivisionError
                super().recall(record)

        self.patch(manager, "Instance", Breaking)
        done = self.next_manager()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(done, [f"could not go on with {first}: the manager's log says why"])
        self.assertEqual(self.states()[second], "running")
        self.assertEqual(self.kernel.signals, [])

    def test_monitor_without_its_child(self) -> None:
        """If its PID 1 is gone but its monitor is still there, it ends when the monitor does."""
        name = self.launch().name
        self.init.end_init()
        self.kernel.reap(self.init.process)
        self.next_manager()
        self.assertEqual(self.manager.find(name).record["pid"], None)
        self.init.end("Done(3)")
        self.assertEqual(self.manager.find(name).exit.status, 3)

    def test_no_files(self) -> None:
        """A folder, pipe or link in place of a record is refused, and blocks no one."""
        for make in (os.mkdir, os.mkfifo, lambda path: os.symlink("/dev/zero", path)):
            name = self.launch(minor=str(len(self.folders("configs")))).name
            path = os.path.join(self.folder, "instances", name, RECORD)
            self.reactor.advance(2)
            os.unlink(path)
            make(path)
            done = self.next_manager()
            self.assertIn("it is not a regular file", done[0])

    def test_delays(self) -> None:
        """The restart delay keeps growing across any number of managers."""
        self.launch(restart="always")
        for delay in (0.1, 0.2, 0.4, 0.8):
            self.init.end("Done")
            self.next_manager()
            self.reactor.advance(delay - 0.01)
            count = len(self.reactor.inits)
            self.reactor.advance(0.02)
            self.assertEqual(len(self.reactor.inits), count + 1)
            self.next_manager()

    def test_steady_over_managers(self) -> None:
        """The time that it has run counts across managers."""
        name = self.launch(restart="always").name
        self.init.end("Done")
        self.reactor.advance(1)
        self.reactor.advance(6)
        self.next_manager()
        self.reactor.advance(6)
        self.init.end("Done")
        self.assertIn("in 0.1 s", self.events()[-1])
        self.assertEqual(self.manager.find(name).state, "waiting")

    def test_since(self) -> None:
        """However many managers follow, the times and the last exit of an instance stay known."""
        ended, again = self.launch(minor="1").name, None
        self.init.end("Done(3)")
        again = self.launch(minor="2", restart="always").name
        self.init.end("Done(4)")
        self.reactor.advance(1.5)
        before = {name: self.manager.find(name).record for name in (ended, again)}
        for _ in range(3):
            self.reactor.advance(5)
            self.next_manager()
            for name, record in before.items():
                after = self.manager.find(name).record
                for key in ("since", "launched", "exit", "restarts", "state"):
                    self.assertEqual(after[key], record[key], (name, key))

    def test_stopping(self) -> None:
        """An interrupted destroy is finished, whether the container still runs or not."""
        for ended in (False, True):
            name = self.launch(minor=str(ended)).name
            self.kernel.catching[self.init.process.pid] = [self.init.process]
            self.start(self.manager.destroy(name))
            self.reactor.lose_manager()
            if ended:
                self.init.end("Done")
            self.next_manager()
            self.reactor.pump([0.05] * 42)
            self.assertNothingLeft()

    def test_killed_by_the_earlier_one(self) -> None:
        """What was being stopped and is found killed was killed for that."""
        instance = self.launch()
        self.kernel.catching[self.init.process.pid] = [self.init.process]
        self.start(life.stop(self.manager, instance))
        self.reactor.lose_manager()
        self.init.end("Killed")
        self.next_manager()
        how = self.manager.find(instance.name).exit
        self.assertEqual(str(how), "asked to end (killed by SIGKILL)")

    def test_log_of_an_ended_one(self) -> None:
        """What an ended instance has written is read to its end, if no manager asked for it yet."""
        instance = self.launch()
        token = instance.processes.token
        self.init.end("Done")
        self.reactor.log_process.told.clear()
        self.next_manager()
        most = instance.spec.longest_log
        told = [f"open {token}", f"name {token} {instance.name} {most}", f"close {token}"]
        self.assertEqual([line for line in self.reactor.log_process.told if line in told], told)

    def test_ended(self) -> None:
        """An ended instance keeps its exit and the time of its end."""
        self.reactor.advance(3)
        name = self.launch().name
        self.init.end("Killed")
        before = self.manager.find(name).record
        self.reactor.advance(3)
        self.next_manager()
        after = self.manager.find(name).record
        self.assertEqual(plain({**after, "slot": None}), plain({**before, "slot": None}))
        killed = "killed by SIGKILL, by someone else than this manager"
        self.assertEqual(self.events()[-1], f"ended: {killed}")

    def test_half_made(self) -> None:
        """A launch that was interrupted at any point is rolled back, its processes ended."""
        for point in ("connects", "prepares", "works"):
            setattr(self.reactor, point, False)
            self.begin_launch(minor=point)
            (name,) = self.manager.instances
            done = self.next_manager()
            if point == "works":  # before, there was no more of it than an init
                self.assertIn(f"rolled back {name}, which was half made or half removed", done)
            self.assertNothingLeft()
            setattr(self.reactor, point, True)

    def test_prepared(self) -> None:
        """What was prepared for an expected launch is removed."""
        os.mkdir(os.path.join(self.folder, "instances/web-1"), Phase.PREPARED)
        done = self.next_manager()
        what = "removed web-1, which had been prepared for a launch that did not come"
        self.assertEqual(done, [what])
        self.assertNothingLeft()

    def test_half_removed(self) -> None:
        """An interrupted removal is finished."""
        folder = os.path.join(self.folder, "instances/web-1")
        os.makedirs(os.path.join(folder, "rw"))
        os.chmod(folder, Phase.ENDING)
        done = self.next_manager()
        self.assertEqual(done, ["rolled back web-1, which was half made or half removed"])
        self.assertNothingLeft()

    def test_hardly_removed(self) -> None:
        """An ended instance whose removal had just begun is removed."""
        instance = self.launch()
        self.init.end("Done")
        os.chmod(instance.folder, Phase.ENDING)
        self.next_manager()
        self.assertNothingLeft()

    def test_stranger(self) -> None:
        """A container without a record is ended."""
        instance = self.launch()
        shutil.rmtree(instance.folder)
        done = self.next_manager()
        self.assertEqual(len(done), 1)
        self.assertIn(str(self.init.process.pid), done[0])
        self.assertNothingLeft()

    def test_empty_slots(self) -> None:
        """An empty run directory is removed."""
        os.mkdir(os.path.join(self.folder, "run/slots/0123"))
        self.next_manager()
        self.assertNothingLeft()

    def test_leftovers(self) -> None:
        """What interrupted unpackings and uploads left is removed and reported."""
        os.makedirs(os.path.join(self.folder, "layers/0123-4567.unpacking/layer"))
        with open(os.path.join(self.folder, "configs/.web-1-01.cfg.1.tmp"), "w") as file:
            file.write("{")
        for work in ("run/images", "run/packing"):
            os.makedirs(os.path.join(self.folder, work, "0123/scratch"))
        self.assertEqual(len(self.next_manager()), 2)
        for folder in ("layers", "configs", "run/images", "run/packing"):
            self.assertEqual(self.folders(folder), [])

    def test_journal(self) -> None:
        """The journal has an event for everything that was done."""
        os.makedirs(os.path.join(self.folder, "instances/web-1"))
        (what,) = self.next_manager()
        self.assertEqual(self.events(), [f"recovered: {what}"])

    def test_pause(self) -> None:
        """A manager that ends leaves no timer and touches no container."""
        self.launch()
        self.launch(minor="2", restart="always")
        self.init.end("Done")
        self.manager.pause()
        self.reactor.advance(100)
        self.assertEqual(len(self.reactor.inits), 2)
        self.assertEqual((self.reactor.getDelayedCalls(), self.kernel.signals), ([], []))

    def test_largest_config(self) -> None:
        """The largest possible config can be read back from a record."""
        padded = document().replace(b"{", b"{" + b"\n" * ((1 << 20) - len(document())), 1)
        self.now(upload(self.manager, padded))
        name = self.now(self.manager.launch("web", "1", "01")).name
        self.next_manager()
        self.assertEqual(self.states(), {name: "running"})


class ScribbleTests(RestoreTestCase):
    """Damaged records."""

    def restore(self, content: Any) -> None:
        """Write this in place of an instance's record, and start the next manager."""
        for name in self.folders("instances"):
            shutil.rmtree(os.path.join(self.folder, "instances", name))
        os.mkdir(os.path.join(self.folder, "instances/web-1"))
        with open(os.path.join(self.folder, "instances/web-1", RECORD), "wb") as file:
            file.write(content)
        aside = len(self.folders("aside"))
        self.next_manager()
        for instance in self.manager.instances.values():
            json.dumps(instance.record, allow_nan=False)
        self.assertEqual(len(self.manager.instances) + len(self.folders("aside")), aside + 1)
        self.manager.pause()

    @given(st.binary(max_size=100) | JSON.map(lambda value: json.dumps(value).encode()))
    def test_arbitrary(self, content: Any) -> None:
        """Whatever is in a record, the manager starts, and sets aside what it can't use."""
        self.restore(content)
        self.assertEqual(self.manager.instances, {})

    @given(st.data())
    def test_changed(self, data: Any) -> None:
        """Whatever one value of a record becomes, the manager starts."""
        record = self.a_record()
        key = data.draw(st.sampled_from(sorted(record)))
        record[key] = data.draw(JSON | st.sampled_from([1e999, "../../etc", "x" * 300, [{}]]))
        self.restore(json.dumps(record).encode())

    @given(st.sampled_from(["status", "signal", "reason", "at"]), JSON | st.just(1e999))
    def test_changed_exit(self, key: Any, value: Any) -> None:
        """Whatever one value of an exit becomes, the manager starts."""
        record = self.a_record()
        record["exit"][key] = value
        self.restore(json.dumps(record).encode())

    @given(st.integers(0, 2000))
    def test_cut_short(self, length: Any) -> None:
        """A truncated record is set aside."""
        record = json.dumps(self.a_record()).encode()
        self.restore(record[: min(length, len(record) - 1)])
        self.assertEqual(self.manager.instances, {})

    def a_record(self) -> Any:
        """A record as it is written."""
        if not hasattr(self, "written"):
            instance = self.launch()
            self.init.end("Done(3)")
            self.written = json.dumps(instance.record)
        return json.loads(self.written)

    def test_its_container(self) -> None:
        """If a record is set aside, its container is ended and its folder kept."""
        instance = self.launch()
        with open(instance.path(RECORD), "w") as file:
            file.write("{")
        done = self.next_manager()
        self.assertEqual(len(done), 2)
        self.assertEqual(len(self.folders("aside")), 1)
        self.assertNothingLeft()

    def test_slots(self) -> None:
        """Stray files and folders among the run directories do no harm."""
        folder = os.path.join(self.folder, "run/slots")
        os.makedirs(os.path.join(folder, "0123/folder"), exist_ok=True)
        open(os.path.join(folder, "stray"), "w").close()
        self.assertEqual(
            self.next_manager(), ["removed the run directory 0123, which nothing uses"]
        )
        self.reactor.pump([0.025] * 40)
        self.launch()


class DoctorTests(VerbTestCase):
    """What should not be there is found and removed."""

    def doctor(self) -> Any:
        """What the doctor finds and does."""
        found = self.now(doctor(self.manager))
        self.reactor.advance(0)
        return found

    def test_all_is_well(self) -> None:
        """In a healthy state nothing is found, whether instances run, wait or have ended."""
        self.launch()
        self.launch(minor="2", restart="always")
        self.init.end("Done")
        self.launch(minor="3")
        self.init.end("Done")
        self.assertEqual(self.doctor(), [])
        self.assertEqual(self.names(), [next(iter(self.manager.instances))])
        self.manager.pause()

    def test_during_a_launch(self) -> None:
        """An instance in the middle of its launch is not reported."""
        self.reactor.works = False
        launched = self.begin_launch()
        self.assertEqual(self.doctor(), [])
        self.init.carry_out()
        self.successResultOf(launched)

    def test_found(self) -> None:
        """Folders of no instance, unused run directories and unused layers are removed."""
        os.mkdir(os.path.join(self.folder, "instances/lost"))
        os.mkdir(os.path.join(self.folder, "layers/0123"))
        os.mkdir(os.path.join(self.folder, "run/slots/0123"))
        self.assertEqual(
            self.doctor(),
            [
                "removed the run directory 0123, which nothing uses",
                "removed the folder instances/lost, of no instance",
                "removed the layer 0123, which nothing uses",
            ],
        )
        self.assertEqual(self.folders("layers"), [])
        self.assertNothingLeft()

    def test_used_layers(self) -> None:
        """A layer that an instance uses is kept."""
        for layer in self.launch().layers:
            os.mkdir(layer)
        self.assertEqual(self.doctor(), [])
        self.assertEqual(len(self.folders("layers")), 1)

    def test_mounts(self) -> None:
        """A mount in the state folder is reported and left alone."""
        self.kernel.mounts = [f"{self.folder}/instances/x"]
        (found,) = self.doctor()
        self.assertIn("/instances/x", found)

    def test_journal(self) -> None:
        """The journal has an event for everything that was done."""
        os.mkdir(os.path.join(self.folder, "instances/lost"))
        self.doctor()
        self.assertEqual(
            self.events(),
            [
                "doctor: removed the folder instances/lost, of no instance",
            ],
        )


def plain(value: Any) -> Any:
    """A value after a round trip through JSON."""
    return json.loads(json.dumps(value))
