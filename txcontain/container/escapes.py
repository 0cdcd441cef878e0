"""What the walls hold: of each, a container without it, and an escape that it stops.

An escape is a short shell script, which runs as the container's program. It proves that it is out,
by what was put on the host for it (``WORD`` and others) or by an open that changes nothing, and
harms nothing. Its exit status is 0 if it got out. ``docs/walls.md`` is made from this table, and
``tests/integration/test_escapes.py`` tries each row: with the wall, and without it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from attrs import evolve, frozen

from txcontain.container.plan import CAPABILITIES, Plan, environment_of, step
from txcontain.container.spec import Spec
from txcontain.container.walls import WALLS, Wall

POWERFUL = [*CAPABILITIES.values(), 27, 34]  # and MKNOD, SYSLOG (capabilities(7))
# Limits that an escape may try to exceed.
MOST_MEMORY, MOST_PROCESSES, MOST_PROCESSORS = 32 << 20, 100, 0.02
SHELL, SAID = "/bin/sh", "exec >&2\n"  # it is heard on its standard error
NOT_OURS = ("output", "look_after", "terminal", "stream")  # steps for a program that stays


def _all(plan: Plan) -> Plan:
    return plan


def _but(*ops: str) -> Callable[[Plan], Plan]:
    """A plan without the steps of these names."""
    return lambda plan: [one for one in plan if one[0] not in ops]


def _in_the_hosts_cgroups(plan: Plan) -> Plan:
    (op, said), *rest = plan
    kinds = [kind for kind in said["namespaces"] if kind != "cgroup"]
    return [(op, {**said, "namespaces": kinds}), *rest]


def _more_powerful(plan: Plan) -> Plan:
    kept = {"bounding_set": {"keep": POWERFUL}, "user": {"capabilities": POWERFUL}}
    return [(op, {**said, **kept.get(op, {})}) for op, said in plan]


def _with_setuid(plan: Plan) -> Plan:
    """Such bits count. The last filter comes earlier, while there is the power to load it."""
    filters = [one for one in plan if one[0] == "seccomp"]
    cut: Plan = []
    for op, said in plan:
        if op == "close_descriptors":
            cut += filters[1:]
        if "nosuid" in said.get("flags", ()):
            said = {**said, "flags": [flag for flag in said["flags"] if flag != "nosuid"]}
        if op != "no_new_privileges" and (op, said) not in filters[1:]:
            cut.append((op, said))
    return cut


def _by_root(plan: Plan) -> Plan:
    return [(op, {**said, "owner": "root"} if op == "user" else said) for op, said in plan]


def _with_host_folder(plan: Plan) -> Plan:
    """That of the bait, which the program's variables name."""
    *_, (_, program) = plan
    folder = os.path.dirname(dict(program["environment"])["FILE"][0])
    more = step("host_folder", path=folder, target="/mnt", flags=["ro"], allowed=[folder])
    return [one for each in plan for one in ([more, each] if each[0] == "seal" else [each])]


def _always(spec: Spec) -> bool:
    return True


@frozen
class Escape:
    """An escape, and how a container is made without the wall that stops it."""

    wall: str  # as ``walls.WALLS`` names it
    does: str
    script: str
    cut: Callable[[Plan], Plan] = _all  # what makes a plan one without the wall
    without: Callable[[Spec], Spec] = lambda spec: spec  # the same of a config
    shared: str = ""  # the kind of namespace that is the host's then
    stands: Callable[[Spec], bool] = _always  # whether a config has the wall
    needs: str = ""  # a key that it has to have for that, if not the wall's
    more: Callable[[Spec], int] = lambda spec: 0  # than the limit that is the wall

    @property
    def about(self) -> Wall:
        """What is known of its wall."""
        return next(wall for wall in WALLS if wall.name == self.wall)

    @property
    def key(self) -> str:
        """What a config says to have the wall; empty if each has it."""
        return self.needs or self.about.key


def _of_memory(spec: Spec) -> int:
    return (spec.limits.memory or 0) + (1 << 20)


ESCAPES = (
    Escape(
        "mount namespace",
        "reads a file of the host's",
        'read -r word <"$FILE" && [ "$word" = "$WORD" ] && echo "$FILE: $word"',
        cut=_but("pivot_root"),
    ),
    Escape(
        "user namespace",
        "finds that its root is the host's root",
        'read -r _ outside _ </proc/self/uid_map && echo "0 is $outside" && [ "$outside" = 0 ]',
        without=lambda spec: evolve(spec, user_namespace=False),
        stands=lambda spec: spec.user_namespace,
    ),
    Escape(
        "system calls",
        "makes a user namespace, and mounts in it with all capabilities",
        "unshare --user --map-root-user --mount "
        "sh -c 'mount -t tmpfs tmpfs /tmp && echo \"it has mounted\"'",
        cut=_but("seccomp"),
    ),
    Escape(
        "capabilities",
        "makes a device node, and opens the host's kernel log by it",
        'mknod /dev/log-of-the-host c 1 11 && : </dev/log-of-the-host && echo "it is open"',
        cut=_more_powerful,
    ),
    Escape(
        "pid namespace",
        "may signal the manager",
        '[ "$MANAGER" != $$ ] && kill -0 "$MANAGER" && echo "process $MANAGER is in reach"',
        shared="pid",
    ),
    Escape(
        "network namespace",
        "sees an abstract socket of the host's",
        'grep "$WORD" /proc/net/unix',
        without=lambda spec: evolve(spec, network="host", ports=()),
        stands=lambda spec: spec.network != "host",
    ),
    Escape(
        "new privileges",
        "becomes root again by a setuid program",
        "cat /bin/id >/tmp/id && chmod 4755 /tmp/id\n"
        'id=$(chroot --userspec=1000:1000 / /tmp/id -u) && echo "1000 is $id" && [ "$id" = 0 ]',
        cut=_with_setuid,
    ),
    Escape(
        "no root",
        "writes where only root may",
        ": >/run/escaped && echo /run/*",
        cut=_by_root,
        stands=lambda spec: spec.startup_owner.partition(":")[0] not in ("root", "0"),
    ),
    Escape(
        "settings",
        "opens a setting of the host's kernel for writing",
        ": >>/proc/sys/kernel/core_pattern && echo open",
        cut=_but("read_only_path"),
    ),
    Escape(
        "masks",
        "reads which interrupts the host has had",
        'read -r line </proc/interrupts && [ "$line" ] && echo "$line"',
        cut=_but("mask"),
    ),
    Escape(
        "memory",
        "takes a MiB more than its limit",
        'head -c "$MORE" /dev/zero >/tmp/taken && ls -l /tmp/taken',
        without=lambda spec: evolve(spec, limits=evolve(spec.limits, memory=None)),
        stands=lambda spec: 0 < (spec.limits.memory or 0) <= MOST_MEMORY,
        needs='"limits": {"memory": "32M"}, or less',
        more=_of_memory,
    ),
    Escape(
        "ipc namespace",
        "sees shared memory of the host's",
        'grep " $MEMORY " /proc/sysvipc/shm',
        shared="ipc",
    ),
    Escape(
        "processes",
        "starts as many processes as it may have, beside itself",
        'n=0; while [ $n -lt "$MORE" ]; do sleep 5 & n=$((n + 1)); done && echo "$n processes"',
        without=lambda spec: evolve(spec, limits=evolve(spec.limits, pids=2 * spec.limits.pids)),
        stands=lambda spec: spec.limits.pids <= MOST_PROCESSES,
        needs='"limits": {"pids": 100}, or less',
        more=lambda spec: spec.limits.pids,
    ),
    Escape(
        "no host folder",
        "reads a file in a folder of the host",
        'read -r word <"/mnt/${FILE##*/}" && [ "$word" = "$WORD" ] && echo "$FILE: $word"',
        cut=_with_host_folder,
        stands=lambda spec: not any(volume.on_host for volume in spec.volumes),
    ),
    Escape(
        "read-only root",
        "writes into its image's root",
        ": >/escaped && ls /escaped",
        cut=_but("seal"),
        stands=lambda spec: not spec.writable_root,
    ),
    Escape(
        "cgroup namespace",
        "sees in which groups of the host it is",
        "grep -v ':/$' /proc/self/cgroup",
        cut=_in_the_hosts_cgroups,
    ),
    Escape(
        "uts namespace",
        "sees the host's name",
        'read -r name </proc/sys/kernel/hostname && echo "$name" && [ "$name" = "$HOST" ]',
        cut=_but("hostname"),  # that would set the host's
        shared="uts",
    ),
    Escape(
        "processors",
        "takes more of their time than its limit, within four seconds",
        "read -r now _ </proc/uptime && end=$((${now%.*} + 4))\n"
        "while [ ${now%.*} -lt $end ]; do read -r now _ </proc/uptime; done\n"
        "read -r said </proc/self/stat && set -- ${said##*) }\n"
        'ticks=$((${12} + ${13})) && echo "$ticks hundredths of a second" && [ $ticks -gt 15 ]',
        without=lambda spec: evolve(spec, limits=evolve(spec.limits, cpus=None)),
        stands=lambda spec: 0 < (spec.limits.cpus or 0) <= MOST_PROCESSORS,
        needs='"limits": {"cpus": 0.02}, or less',
    ),
)


OF_WALL = {one.wall: one for one in ESCAPES}


def plan_of_escape(
    plan: Plan, spec: Spec, escape: Escape, bait: Mapping[str, str], *, held: bool
) -> Plan:
    """A container's plan, with an escape in place of its program.

    :param bait: variables that tell the escape what is on the host for it
    :param held: whether the wall is there
    """
    variables: list[Any] = [(name, (value,)) for name, value in bait.items()]
    more = ("MORE", (str(escape.more(spec)),))
    program = step(
        "exec",
        path=SHELL,
        arguments=["-c", SAID + escape.script],
        environment=[*environment_of(spec), *variables, more],
        key="command",
    )
    made = [*_but(*NOT_OURS)(plan[:-1]), program]
    return made if held else escape.cut(made)
