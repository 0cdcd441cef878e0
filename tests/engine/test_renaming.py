"""Instances get other names, on a fake machine."""

import os
from typing import Any

from tests.engine.test_life import LifeCase
from tests.fakes import write_log
from txcontain.engine.renaming import rename
from txcontain.errors import CalledOff, ConfigAtFault, InstanceExists, MachineAtFault, WrongState
from txcontain.runtime.instance import Instance


class RenamingTests(LifeCase):
    """The name of an instance, in all places."""

    def rename(self, instance: Instance, to: str = "shop") -> None:
        """Rename an instance."""
        self.now(rename(self.manager, instance, to))

    def test_running(self) -> None:
        """The log process renames the folder of one that runs; all else follows."""
        before = [self.launch(), self.launch(minor="2"), self.launch(minor="3")]
        instance, old = before[1], before[1].name
        self.rename(instance)
        self.assertEqual(self.manager.running(), before)
        self.assertIs(self.manager.find("shop"), instance)
        self.assertEqual(instance.folder, os.path.join(self.manager.folder, "shop"))
        self.assertIn(f"rename {before[1].record['slot']} shop", self.reactor.log_process.told)
        self.assertNotIn(old, os.listdir(self.manager.folder))
        self.assertEqual(self.events()[-1], f"renamed: it was {old}")
        self.next_manager()
        self.assertTrue(self.manager.find("shop").running)

    def test_stopped(self) -> None:
        """One that is stopped keeps its log, and is started in its new folder."""
        instance = self.launch(mounts=["a.tar /a READWRITE"])
        write_log(instance, b"hello")
        self.stop(instance)
        self.rename(instance)
        self.assertTrue(os.path.isdir(instance.path("log")))
        self.start_again(instance)
        self.assertIn(f"{instance.folder}/0-upper", str(self.init.plan))
        destroyed = self.start(self.manager.destroy("shop"))
        self.reactor.advance(1)
        self.successResultOf(destroyed)
        self.assertEqual(os.listdir(self.manager.folder), [])

    def test_private_network(self) -> None:
        """On the private network it is found by its new name, and not by the old one."""
        instance = self.launch(network="private")
        old = instance.name
        self.rename(instance)
        find = self.manager.network.find
        self.assertEqual((find("shop"), find(old)), ([instance.address], None))
        self.assertEqual(find("web"), [instance.address])

    def test_taken(self) -> None:
        """The name of another instance, or of a config on the network, is refused."""
        one, other = self.launch(network="private"), self.launch(name="db", network="private")
        self.refused(rename(self.manager, one, other.name), InstanceExists)
        self.refused(rename(self.manager, one, "DB"), ConfigAtFault)
        self.refused(rename(self.manager, one, one.name), InstanceExists)

    def test_state(self) -> None:
        """One that is about to start or to end is left alone."""
        instance = self.launch(restart="always")
        self.init.end("Done(1)")
        self.refused(rename(self.manager, instance, "shop"), WrongState)

    def test_destroyed(self) -> None:
        """One that was destroyed meanwhile has no new name."""
        instance = self.launch()
        destroyed = self.start(self.manager.destroy(instance.name))
        renamed = self.start(rename(self.manager, instance, "shop"))
        self.reactor.advance(1)
        self.successResultOf(destroyed)
        self.failureResultOf(renamed, CalledOff)

    def test_disk(self) -> None:
        """If the disk refuses, all is as it was."""

        def fail(*_: Any) -> None:
            raise OSError(5, "Input/output error")

        running, stopped = self.launch(), self.launch(minor="2")
        self.stop(stopped)
        self.patch(os, "rename", fail)
        for instance in (running, stopped):
            self.refused(rename(self.manager, instance, "shop"), MachineAtFault)
            self.assertIs(self.manager.find(instance.name), instance)
            self.assertTrue(os.path.isdir(instance.folder))

    def test_log_process_is_silent(self) -> None:
        """If the log process does not answer, nothing is renamed after a while."""
        instance = self.launch()
        self.reactor.log_process.silent = True
        renamed = self.start(rename(self.manager, instance, "shop"))
        self.reactor.advance(6)
        self.failureResultOf(renamed, MachineAtFault)
