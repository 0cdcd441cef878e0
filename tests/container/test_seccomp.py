"""The filter of system calls, loaded into a child that keeps all our capabilities."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import signal
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pyseccomp
from twisted.trial.unittest import SynchronousTestCase

from tests.support import needs_root
from txcontain.container.init import Kernel
from txcontain.container.plan import CAPABILITIES
from txcontain.container.seccomp import (
    ALLOWED,
    FAMILIES,
    FOR_PLANS,
    HARMLESS_PERSONALITIES,
    REFUSED,
    compile_filters,
)

F_SETLEASE, F_GETLEASE, F_DUPFD, F_SETDELEG = 1024, 1025, 0, 1040
HIGH_BITS = 1 << 32  # the kernel looks at the lower half of most arguments
SECONDS = 20  # after which a child that hangs is ended
# What Docker's default profile says, as data: its source and the day it was read are in it.
DOCKER = json.loads((Path(__file__).parent / "docker_seccomp.json").read_text())
HERE = ("x86", "arm", "riscv64")  # the architectures of Docker's that the filter is meant for
# Looked at by their arguments; fcntl and ptrace only here, for leases and for who attaches.
BY_ARGUMENT = {"clone", "fcntl", "fcntl64", "personality", "ptrace", "socket"}
STRICTER = {  # what Docker lets a container do, and we do not
    "process_vm_readv": "takes another process's memory",
    "process_vm_writev": "changes another process's memory",
    "socketcall": "its arguments, behind a pointer, can't be looked at: the families that lead "
    "around a network namespace would be to be had by it",
}


def number(name: str) -> int:
    """The number of a system call on this machine; -1 if it has none or it is unknown."""
    try:
        return pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, name)
    except ValueError:
        return -1


def call(name: str, *arguments: int) -> str:
    """The name of the error that a system call answers, or 'done'."""
    libc = ctypes.CDLL(None, use_errno=True)
    result = libc.syscall(number(name), *map(ctypes.c_long, arguments))
    return "done" if result >= 0 else errno.errorcode[ctypes.get_errno()]


@needs_root
class FilterTests(SynchronousTestCase):
    """What the filter refuses itself: the child has all capabilities."""

    programs = compile_filters()

    def filtered(self, function: Callable[[], str], parts: int = 2) -> str:
        """What a function returns behind the filter, or behind only its first part."""
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                signal.alarm(SECONDS)
                for program in self.programs[:parts]:
                    Kernel().load_filter(program)
                os.write(write, function().encode())
            finally:
                os._exit(0)
        os.close(write)
        with open(read) as file:
            said = file.read()
        self.assertEqual(os.waitpid(child, 0)[1], 0)
        return said

    def test_refused(self) -> None:
        """Every call that is known and refused answers EPERM, also to root of the host."""
        known = [name for name in REFUSED if number(name) >= 0]
        self.assertLess(40, len(known))
        said = self.filtered(lambda: " ".join(call(name) for name in known))
        self.assertEqual({*said.split()}, {"EPERM"})

    def test_for_plans(self) -> None:
        """The first part lets an init do what plans need, and already refuses all else."""
        known = [name for name in REFUSED if number(name) >= 0]
        said = self.filtered(lambda: " ".join(call(name, -1, -1, -1) for name in known), parts=1)
        allowed = {
            name for name, answer in zip(known, said.split(), strict=True) if answer != "EPERM"
        }
        self.assertEqual(allowed, {*FOR_PLANS})

    def test_unlisted(self) -> None:
        """A call on no list answers ENOSYS, as if the kernel did not have it."""
        self.assertEqual(self.filtered(lambda: call("clone3")), "ENOSYS")
        self.assertEqual(self.filtered(lambda: call("vserver")), "ENOSYS")

    def test_lists(self) -> None:
        """No call is on both lists, nor twice on one."""
        self.assertEqual(len({*ALLOWED, *REFUSED}), len(ALLOWED) + len(REFUSED))

    def test_namespaces(self) -> None:
        """A child may be made, but not in new namespaces of any kind."""
        for kind in (0x80, *(1 << bit for bit in (17, 25, 26, 27, 28, 29, 30))):
            self.assertEqual(self.filtered(partial(call, "clone", kind)), "ENOSYS")

        def ordinary() -> str:
            child = os.fork()
            if child == 0:
                os._exit(7)
            return str(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

        self.assertEqual(self.filtered(ordinary), "7")

    def test_leases(self) -> None:
        """fcntl works, but leases are refused, whatever the argument's high half."""

        def commands() -> str:
            refused = (F_SETLEASE, F_SETDELEG, F_SETLEASE | HIGH_BITS, F_SETDELEG | HIGH_BITS)
            file = os.open(__file__, os.O_RDONLY)
            return " ".join(
                call("fcntl", file, command, 0) for command in (*refused, F_DUPFD, F_GETLEASE)
            )

        self.assertEqual(self.filtered(commands), "ENOSYS ENOSYS ENOSYS ENOSYS done done")

    def test_sockets(self) -> None:
        """No socket can be made of a family that leads around a network namespace."""

        def families() -> str:
            wanted = (socket.AF_INET, socket.AF_UNIX, socket.AF_NETLINK, 38, 40, 40 | HIGH_BITS)
            return " ".join(call("socket", family, socket.SOCK_DGRAM, 0) for family in wanted)

        self.assertEqual(self.filtered(families), "done done done ENOSYS ENOSYS ENOSYS")

    def test_ptrace(self) -> None:
        """A process may let its parent trace it, but may not attach to another."""

        def traces() -> str:
            requests = (0, 16, 0x4206, 16 | HIGH_BITS)
            return " ".join(call("ptrace", request, os.getppid()) for request in requests)

        self.assertEqual(self.filtered(traces), "done ENOSYS ENOSYS ENOSYS")


class DriftTests(SynchronousTestCase):
    """Where this filter and Docker's differ, and why."""

    def docker_allows(self) -> set[str]:
        """The calls that Docker allows with our capabilities, whatever their arguments."""
        with_them = [DOCKER["by_capability"].get(name, []) for name in CAPABILITIES]
        on_these = [DOCKER["by_architecture"][name] for name in HERE]
        return set(DOCKER["always"]).union(*with_them, *on_these)

    def test_calls(self) -> None:
        """We allow what Docker allows, except a few calls, and nothing else."""
        missing = self.docker_allows() - {*ALLOWED} - BY_ARGUMENT
        self.assertEqual(missing, {*STRICTER})
        self.assertEqual({*ALLOWED} - self.docker_allows(), set())

    def test_capabilities(self) -> None:
        """A call that Docker ties to a capability is not allowed, as no container has that."""
        tied = {
            name
            for capability, names in DOCKER["by_capability"].items()
            if capability not in CAPABILITIES
            for name in names
        }
        self.assertIn("mbind", tied)
        self.assertEqual(tied & {*ALLOWED}, set())

    def test_arguments(self) -> None:
        """Families of sockets and personalities are Docker's, and clone is looked at as well."""
        self.assertEqual(FAMILIES, DOCKER["families"])
        self.assertEqual([*HARMLESS_PERSONALITIES], DOCKER["personalities"])
        self.assertLessEqual({*DOCKER["by_argument"]}, BY_ARGUMENT)
