"""Recovery: adopt the instances of an earlier manager, and remove what belongs to none."""

from __future__ import annotations

import os
from collections.abc import Collection
from functools import partial
from secrets import token_hex
from typing import Any

from twisted.logger import Logger

from txcontain.engine.files import remove_unfinished
from txcontain.engine.life import start
from txcontain.engine.manager import Manager
from txcontain.host.kernel import most_held
from txcontain.host.os_errors import of_os
from txcontain.host.processes import Process
from txcontain.later import Timer, background
from txcontain.runtime.adopted import Adopted
from txcontain.runtime.exits import ASKED, BY_REBOOT, UNSEEN, Exit
from txcontain.runtime.instance import Instance
from txcontain.runtime.phase import Phase, phase_of
from txcontain.runtime.records import AT_REST, FIRST_DELAY, RECORD, read_record
from txcontain.runtime.supervised import UNKNOWN

READ_AGAIN = 5.0  # seconds
WANTED_FILES = 1 << 16  # descriptors: one per instance, and those for everything else

log = Logger()
Monitors = dict[str, tuple[Process, Process | None]]  # by token, as Kernel.monitors finds them


def restore(manager: Manager) -> list[str]:
    """Adopt, finish or roll back everything that an earlier manager left.

    Returns what was done, one sentence each.
    """
    may_open = manager.kernel.open_more(WANTED_FILES)
    leftovers, wrong = manager.volumes.recover()  # before the plans of those that use them
    wrong += manager.layers.recover() + manager.arrivals.images.recover()
    done = _go_on_with(manager, os.listdir(manager.folder))
    background(_recover_network(manager), "recovering the private network")
    manager.tidy_soon()
    for path in manager.layers.cut_short():
        done.append(f"removed {path}, whose unpacking was cut short")
        _remove_later(manager, path)
    for work in ("images", "packing"):
        folder = os.path.join(manager.state, "run", work)
        for name in os.listdir(folder):
            _remove_later(manager, os.path.join(folder, name))
    for path in leftovers:
        done.append(f"removed {path}, a volume's, which was half made or half removed")
        _remove_later(manager, path)
    done += wrong
    for kept in (manager.configs, manager.vault):
        done += [f"removed {name}, a write cut short" for name in kept.recover()]
    done += [f"removed {name}, a commit cut short" for name in remove_unfinished(manager)]
    if most_held(may_open) < len(manager.instances):
        done.append(
            f"the manager may open {may_open} files only, which is too few for "
            f"{len(manager.instances)} instances: raise LimitNOFILE, or ulimit -n"
        )
    for what in done:
        manager.journal.add("recovered", what)
    return done


def _go_on_with(manager: Manager, names: list[str]) -> list[str]:
    """Adopt instances now; retry later those whose records can't be read."""
    monitors = manager.kernel.monitors(manager.pool.run_directories)
    records, done = _read_records(manager, names)
    records.sort(key=lambda one: float(one["launched"]))
    for record in records:
        try:
            _resume(manager, record, monitors)
        except Exception:  # one broken instance must not stop the others
            name = record["instance"]
            log.failure("going on with {name}", name=name)
            done.append(f"could not go on with {name}: the manager's log says why")
    _revive(manager, records)
    if manager.unread:
        Timer(manager.reactor, partial(_read_again, manager)).after(READ_AGAIN)
    else:  # only now: a run directory may belong to a record that could not be read
        ours = {record["slot"] for record in records if record["slot"]}
        done += _end_strangers(manager, monitors, ours)
    return done


def _read_again(manager: Manager) -> None:
    names, manager.unread = manager.unread, []
    for what in _go_on_with(manager, names):
        manager.journal.add("recovered", what)


async def _recover_network(manager: Manager) -> None:
    for what in await manager.network.recover():
        manager.journal.add("recovered", what)


async def doctor(manager: Manager) -> list[str]:
    """Find and remove what should not be there; returns what was found and done."""
    monitors = await manager.threads(manager.kernel.monitors, manager.pool.run_directories)
    done = [] if manager.unread else _end_strangers(manager, monitors)
    known = set(manager.instances) | manager.pool.prepared.names | set(manager.unread)
    for name in set(os.listdir(manager.folder)) - known:
        await manager.remove(os.path.join(manager.folder, name))
        done.append(f"removed the folder instances/{name}, of no instance")
    manager.pool.expect_nothing()
    if not manager.unread:
        for name in await manager.layers.remove_unused(manager.layers_in_use):
            done.append(f"removed the layer {name}, which nothing uses")
    done += await manager.network.recover()
    unfinished = await manager.threads(remove_unfinished, manager)
    done += [f"removed {name}, a commit cut short" for name in unfinished]
    for path in manager.kernel.mounts_below(manager.state):
        done.append(f"there is a mount of this host at {path}: umount it, if it is not yours")
    for what in done:
        manager.journal.add("doctor", what)
    return done


def _read_records(manager: Manager, names: list[str]) -> tuple[list[dict[str, Any]], list[str]]:
    records, done = [], []
    for name in names:
        path = os.path.join(manager.folder, name)
        try:
            phase = phase_of(path)
            if phase in (Phase.HALF_MADE, Phase.PREPARED):
                raise ValueError("there was no instance yet")
            record = read_record(name, os.path.join(path, RECORD), manager.layers.folder)
        except ValueError as error:
            done.append(_put_away(manager, path, phase, error))
        except OSError as error:
            manager.unread.append(name)
            done.append(f"can't read the record of {name} yet: {of_os(error)}")
        else:
            records.append({**record, "ending": phase == Phase.ENDING})
    return records, done


def _put_away(manager: Manager, path: str, phase: int, error: ValueError) -> str:
    name = os.path.basename(path)
    if phase == Phase.PREPARED:
        _remove_later(manager, path)
        return f"removed {name}, which had been prepared for a launch that did not come"
    if phase in (Phase.HALF_MADE, Phase.ENDING):
        _remove_later(manager, path)
        return f"rolled back {name}, which was half made or half removed"
    try:
        os.rename(path, os.path.join(manager.state, "aside", f"{name}-{token_hex(4)}"))
    except OSError as why:
        return f"could not set {name} aside: {of_os(why)}; {error}"
    return f"set {name} aside: {error}"


def _resume(manager: Manager, record: dict[str, Any], monitors: Monitors) -> None:
    name, spec, address = record["instance"], record["spec"], record["address"]
    blueprint = manager.blueprint(spec, record["layers"], address, record["ids"])
    instance = manager.make_instance(name, blueprint)
    instance.address6 = record["address6"]  # none if it was launched without
    if address and record["state"] not in AT_REST:
        manager.network.adopt(name, spec, address, record["address6"])
    manager.instances[instance.name] = instance
    instance.recall(record)
    instance.changed = manager.changed
    if record["state"] in AT_REST:
        instance.rested_before(record["state"], record["exit"])
        _close_log(manager, instance, record)
        if instance.remove:
            manager.remove_later(instance)
    else:
        _follow(manager, instance, record, monitors)
    if record["ending"]:
        background(manager.destroy(instance.name), f"going on to destroy {instance.name}")


def _follow(
    manager: Manager, instance: Instance, record: dict[str, Any], monitors: Monitors
) -> None:
    """Adopt an instance's processes; if they have ended, its restart policy decides."""
    token = record["slot"] or "none"
    processes = _adopted(manager, token, monitors)
    if record["state"] == "stopping" or record["ending"]:
        processes.killed_because = ASKED  # by the earlier manager
    how = _adopt(processes)
    was_stopping = record["state"] == "stopping" and not record["ending"]
    if how is None:
        kept = instance.name, instance.spec.longest_log
        manager.pool.log_process.adopt(token, *kept, terminal=instance.spec.tty)
        instance.adopt(processes)
        if was_stopping:
            instance.halt(instance.spec.stop_timeout)
        return
    _close_log(manager, instance, record)
    processes.clear()
    rebooted = record["boot"] != manager.kernel.boot_id()
    if record["state"] == "waiting" and not (rebooted and "service" in instance.labels):
        instance.go_on_waiting(record["exit"] or how)
        return
    if how.reason == UNSEEN and rebooted:
        how = Exit(reason=f"{BY_REBOOT} of the machine", at=manager.kernel.boot_time())
        instance.restarts = 0  # a reboot is no failure of its own
    if rebooted and "service" in instance.labels:
        _leave_to_keeper(instance, how)
    elif was_stopping:
        instance.stopped_meanwhile(how)
    else:
        instance.ended_meanwhile(how)


def _leave_to_keeper(instance: Instance, how: Exit) -> None:
    """Replicas of services are started in the order of the services; jobs are not run again."""
    if "replica" in instance.labels:
        instance.stopped_meanwhile(how)
    else:
        instance.rested_before("ended", how)


def _revive(manager: Manager, records: list[dict[str, Any]]) -> None:
    """After a reboot, start those again that were stopped, and whose policy is "always".

    ("unless-stopped" is the policy that heeds who stopped it.) Those of services are the keeper's.
    """
    for record in records:
        instance = manager.instances.get(record["instance"])
        if instance is None or instance.state != "stopped" or instance.ending:
            continue
        if "service" in instance.labels:
            continue
        if instance.spec.restart == "always" and instance.boot != manager.kernel.boot_id():
            Timer(manager.reactor, partial(_start, manager, instance)).after(FIRST_DELAY)


def _start(manager: Manager, instance: Instance) -> None:
    background(start(manager, instance), f"starting {instance.name} after a reboot")


def _close_log(manager: Manager, instance: Instance, record: dict[str, Any]) -> None:
    """It has ended. Have the log process read what the earlier manager had no time to ask for."""
    token, log_process = record["slot"], manager.pool.log_process
    if token:
        log_process.adopt(token, instance.name, instance.spec.longest_log)
        background(log_process.close(token), f"the log of {instance.name}")


def _adopted(manager: Manager, token: str, monitors: Monitors) -> Adopted:
    folder = os.path.join(manager.pool.run_directories, token)
    machine = manager.reactor, manager.kernel, manager.pool.cgroups, manager.pool.writes
    monitor, process = monitors.get(token, (UNKNOWN, None))
    return Adopted(*machine, folder, process or UNKNOWN, monitor)


def _end_strangers(manager: Manager, monitors: Monitors, known: Collection[str] = ()) -> list[str]:
    """End what runs in run directories of no instance and no warm init."""
    ours = set(known)
    ours |= {one.processes.token for one in manager.instances.values() if one.processes}
    done = []
    for token in manager.pool.tokens() - ours:
        processes = _adopted(manager, token, monitors)
        if _adopt(processes) is None:
            processes.on_exit = lambda _, processes=processes: processes.clear()
            done.append(_end_stranger(processes))
        else:
            done.append(f"removed the run directory {token}, which nothing uses")
            processes.clear()
    return done


def _remove_later(manager: Manager, path: str) -> None:
    async def remove() -> None:
        await manager.remove(path)

    background(remove(), f"removing {path}")


def _end_stranger(processes: Adopted) -> str:
    pid = processes.process.pid or processes.monitor.pid
    what = f"process {pid}, of a launch that was cut short"
    try:
        processes.kill("its launch was cut short")
    except OSError as error:
        return f"could not end {what}: {of_os(error)}"
    return f"ended {what}"


def _adopt(processes: Adopted) -> Exit | None:
    """Follow a run directory's processes; returns how they ended, if that is already known."""
    processes.follow()
    return processes.exit
