"""The real kernel and the fake one keep one contract."""

from inspect import getsource, signature

from twisted.trial.unittest import SynchronousTestCase

from tests import kernel_contract
from tests.fakes import FakeKernel
from tests.kernel_contract import Contract, FakeWorld, PrivilegedContract, RealWorld
from txcontain.host.kernel import Kernel

NOT_THE_KERNELS = {"begin", "end", "reap"}  # by these a test of the fake one makes things happen
NOT_FAKED = {"cut_off"}  # a test of logs uses the real one


class RealKernel(RealWorld, Contract, SynchronousTestCase):
    """The real kernel keeps the contract."""

    def test_the_boot(self) -> None:
        """The boot has an id that stays the same."""
        self.assertRegex(self.kernel.boot_id(), r"^[0-9a-f-]{36}$")
        self.assertEqual(self.kernel.boot_id(), self.kernel.boot_id())


class FakeKernelTests(FakeWorld, Contract, PrivilegedContract, SynchronousTestCase):
    """So does the fake one: what passes on it proves something."""

    def test_nothing_is_left_out(self) -> None:
        """Every method of both is in the contract, and takes the same arguments in both."""
        contract = getsource(kernel_contract)
        for name in vars(FakeKernel).keys() - NOT_THE_KERNELS - NOT_FAKED:
            if name.startswith("_"):
                continue
            fake, real = getattr(FakeKernel(), name), getattr(Kernel(), name)
            self.assertEqual(list(signature(fake).parameters), list(signature(real).parameters))
            self.assertIn(f"self.kernel.{name}", contract)
