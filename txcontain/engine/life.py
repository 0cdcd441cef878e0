"""The verbs of an instance's life: stop it and start it again, signal it, pause it."""

from __future__ import annotations

from signal import SIGKILL, strsignal

from attrs import evolve
from twisted.internet.defer import Deferred, TimeoutError

from txcontain.container.blueprint import Blueprint
from txcontain.container.launch_request import LaunchRequest
from txcontain.engine.manager import Manager, is_stuck
from txcontain.engine.ports import check_ports
from txcontain.errors import CalledOff, ConfigAtFault, MachineAtFault, NotRunning, WrongState
from txcontain.host.os_errors import of_os
from txcontain.host.syscalls import flush_disk
from txcontain.later import pause as pause_for
from txcontain.later import poll
from txcontain.runtime import volatile
from txcontain.runtime.ending import END_WITHIN
from txcontain.runtime.exits import Exit
from txcontain.runtime.instance import Instance
from txcontain.runtime.supervised import Supervised

FREEZE_WITHIN, LOOK_AFTER, LOOK_AT_MOST = 5.0, 0.002, 0.05  # seconds
Notes = list[str]  # sentences for the person who asked

# -- stop, start, restart ----------------------------------------------------------


async def stop(manager: Manager, instance: Instance, timeout: float | None = None) -> Notes:
    """End a container, and keep its data until it is started or destroyed.

    ``timeout``: seconds until SIGKILL, in place of the config's ``stop_timeout``.

    Raises WrongState while someone waits for its launch; CalledOff, MachineAtFault.
    """
    async with instance.moving:
        return await _stop(manager, instance, timeout)


async def start(manager: Manager, instance: Instance) -> Notes:
    """Start a container that was stopped, or has ended, in the same folder, with a new init.

    What had failed to be launched is launched again.

    Raises what a launch raises; then the instance is stopped, or has failed again.
    """
    async with instance.moving:
        return await _start(manager, instance)


async def restart(manager: Manager, instance: Instance, timeout: float | None = None) -> Notes:
    """Stop a container, unless it has ended already, and start it.

    Raises what ``stop`` and ``start`` raise.
    """
    async with instance.moving:
        _check_that_it_stays(instance)
        notes = [] if instance.ended else await _stop(manager, instance, timeout)
        return notes + await _start(manager, instance)


async def _stop(manager: Manager, instance: Instance, timeout: float | None) -> Notes:
    return await _halt(manager, instance, timeout) or await _settle(manager, instance)


async def _halt(manager: Manager, instance: Instance, timeout: float | None) -> Notes:
    """End it; returns why nothing of it is to be kept, if so."""
    await manager.network.set_aside(instance.name)
    if instance.ended:
        return [f"{instance.name} does not run: it is {instance.state}"]
    if instance.is_being_started:
        hint = "wait until it runs, or destroy it"
        raise WrongState(f"{instance.name} is being started", hint)
    patience = instance.spec.stop_timeout if timeout is None else timeout
    stopped = instance.halt(patience)
    stopped.addTimeout(patience + END_WITHIN, manager.reactor)
    try:
        await stopped
    except TimeoutError as error:
        raise is_stuck(instance) from error
    if instance.remove:
        return [f"{instance.name} is about to be removed, as its launch asked for"]
    await pause_for(manager.reactor, 0)  # we were told in the middle of the move to "stopped"
    _check_that_it_is_there(instance)
    return []


def _lost(instance: Instance) -> Notes:
    spec = instance.spec
    writable = spec.writable_root or any(mount.writable for mount in spec.mounts)
    if spec.limits.disk is None or not writable:
        return []
    return [f"what {instance.name} wrote was in memory (limits.disk), and is gone"]


async def _settle(manager: Manager, instance: Instance) -> Notes:
    """See to it that what a stopped instance wrote outlives a power cut."""
    if instance.settled:  # by another request; by now it may be mounted for the next start
        return _lost(instance)
    try:
        wrote = await manager.threads(volatile.settle, instance.plan, instance.folder)
        instance.settled = True
        instance.save()
        await manager.pool.written()
        if wrote:  # the record that says so, too
            await manager.threads(flush_disk, instance.folder)
    except OSError as error:
        _check_that_it_is_there(instance)
        what = f"what {instance.name} wrote may not outlive a reboot"
        failed = f"{what}: it can't be written to the disk now ({of_os(error)})"
        return [*_lost(instance), failed]
    if instance.state == "stopped" and not instance.ending:
        manager.pool.standby.stopped(instance.name, instance.plan)
    return _lost(instance)


async def _start(manager: Manager, instance: Instance) -> Notes:
    if instance.state == "failed":
        return await _launch_again(manager, instance)
    if not (instance.ended or instance.state == "waiting"):
        return [f"{instance.name} is {instance.state} already"]
    _check_that_it_stays(instance)
    with manager.holding(instance.layers):
        await _prepare(manager, instance)
        if instance.ended or instance.state == "waiting":  # it may have been started meanwhile
            was_prepared = instance.prepared is not None
            await instance.start()
            if not was_prepared:
                manager.pool.prepared.started(_blueprint(manager, instance, instance.address))
    return []


def _blueprint(manager: Manager, instance: Instance, address: str | None) -> Blueprint:
    return manager.blueprint(instance.spec, instance.layers, address, instance.ids)


async def _launch_again(manager: Manager, failed: Instance) -> Notes:
    """Of a launch that failed nothing is left to start: another one replaces it."""
    asked = LaunchRequest(failed.spec, instance=failed.name, labels=failed.labels)
    if not failed.inline:
        name, major, minor = failed.spec.key
        asked = evolve(asked, config=name, major=major, minor=minor)
    return list((await manager.launch_as_asked(asked)).notes)


async def _prepare(manager: Manager, instance: Instance) -> None:
    """Check that all is there, and nothing in the way.

    Raises ConfigAtFault, MachineAtFault, CalledOff.
    """
    others = {name: one for name, one in manager.instances.items() if one is not instance}
    await check_ports(instance.spec, others, manager.kernel, manager.threads)
    await _clear_last_run(instance)
    plan, standby = _blueprint(manager, instance, None).plan(instance.name), manager.pool.standby
    child = await standby.take(instance.name, plan)
    try:
        if child is None:  # else it has mounted all that, when it was settled
            await _check_files(manager, instance)
        _check_that_it_is_there(instance)
        if instance.ended:  # else it has its address and ports
            manager.move_in(instance)
    except Exception:
        if child is not None:
            standby.give_back(instance.name, child)
        raise
    instance.prepared = child


async def _clear_last_run(instance: Instance) -> None:
    processes = instance.processes
    if processes is None or processes.is_gone or not instance.ended:
        return
    if left := await processes.remove():
        raise MachineAtFault(
            f"starting {instance.name}", "of its last run something is left", *left
        )


async def _check_files(manager: Manager, instance: Instance) -> None:
    """Look at its images, and at what it wrote; all in one visit of a thread."""
    files, same_boot = (instance.plan, instance.folder), instance.boot == manager.kernel.boot_id()

    def look() -> tuple[bool, bool]:
        there = manager.layers.are_there(instance.layers)
        if there and (same_boot or instance.settled):
            volatile.unmark(*files)
        return there, volatile.is_marked(*files)

    there, is_marked = await manager.threads(look)
    if not there:
        raise ConfigAtFault(
            f"the images of {instance.name} were removed, as it had ended",
            "destroy it, and launch its config again",
        )
    if is_marked:
        raise MachineAtFault(
            f"starting {instance.name}",
            "the machine went down before all that it had written was on the disk",
            "destroy it, and launch its config again; to keep such data, stop an instance before "
            'a reboot, or write "restart" in its config',
        )


def _check_that_it_stays(instance: Instance) -> None:
    if instance.remove:
        hint = "launch another one"
        raise WrongState(f"{instance.name} can't be started again: its end removes it", hint)


def _check_that_it_is_there(instance: Instance) -> None:
    if instance.ending:
        raise CalledOff(f"{instance.name} was destroyed meanwhile")


async def until_it_is_kept(manager: Manager, instance: Instance, ended: Deferred[Exit]) -> Exit:
    """How an instance has ended, once the next manager would know it too, and whoever inspects it.

    :param ended: as ``instance.end()`` returns it
    """
    how = await ended
    async with instance.settling:  # its launch may have failed, and be about to say why
        await manager.pool.written()
    failed = instance.state == "failed"
    return instance.exit if failed and instance.exit else how


# -- kill, pause, resume -----------------------------------------------------------


async def kill(manager: Manager, instance: Instance, signal: int = SIGKILL) -> Notes:
    """Send a signal to PID 1; SIGKILL stops the instance, at once.

    Raises NotRunning, WrongState, CalledOff, MachineAtFault.
    """
    if signal == SIGKILL and not instance.ended:
        notes = await _halt(manager, instance, 0)  # also while a slow stop has the lock
        async with instance.moving:  # it may have been started meanwhile
            return notes or (await _settle(manager, instance) if instance.ended else [])
    try:
        processes_of(instance).send_signal(signal)
    except OSError as error:
        raise MachineAtFault(f"sending a signal to {instance.name}", of_os(error)) from error
    what = f"PID 1 was sent signal {signal} ({strsignal(signal)})"
    manager.journal.add("signalled", what, instance=instance.name)
    return []


async def pause(manager: Manager, instance: Instance) -> Notes:
    """Freeze all processes of a container.

    Raises NotRunning; MachineAtFault if they can't be frozen.
    """
    processes = processes_of(instance)
    if instance.paused:
        return [f"{instance.name} is paused already"]
    try:
        await _freeze(manager, instance, processes)
    except OSError as error:
        hint = "this takes cgroup version 2, or the freezer of version 1"
        raise MachineAtFault(f"pausing {instance.name}", of_os(error), hint) from error
    manager.changed(instance, "its processes are frozen", "paused")
    return []


async def _freeze(manager: Manager, instance: Instance, processes: Supervised) -> None:
    cgroups, token = processes.cgroups, processes.token
    cgroups.freeze(token)
    instance.set_paused(True)
    looks = poll(manager.reactor, LOOK_AFTER, most=LOOK_AT_MOST, within=FREEZE_WITHIN)
    async for _ in looks:
        if cgroups.is_frozen(token) or not instance.paused:
            break
    else:
        cgroups.thaw(token)
        instance.set_paused(False)
        why = f"its processes did not stop within {FREEZE_WITHIN:.0f} s"
        raise MachineAtFault(f"pausing {instance.name}", why)
    processes_of(instance)  # it may have ended meanwhile


async def resume(manager: Manager, instance: Instance) -> Notes:
    """Let the processes of a paused container run on.

    Raises NotRunning, MachineAtFault.
    """
    processes = processes_of(instance)
    if not instance.paused:
        return [f"{instance.name} is not paused"]
    try:
        processes.cgroups.thaw(processes.token)
    except OSError as error:
        raise MachineAtFault(f"resuming {instance.name}", of_os(error)) from error
    instance.set_paused(False)
    manager.changed(instance, "its processes run on", "resumed")
    return []


def processes_of(instance: Instance) -> Supervised:
    """The processes of an instance that runs.

    Raises NotRunning.
    """
    if not instance.running or instance.processes is None:
        hint = "start it first" if instance.ended else "wait until it runs"
        raise NotRunning(f"{instance.name} does not run: it is {instance.state}", hint)
    return instance.processes
