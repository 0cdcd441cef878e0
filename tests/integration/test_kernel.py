"""The part of the kernel's contract that needs root; the rest is in tests/host/test_kernel.py."""

from twisted.trial.unittest import SynchronousTestCase

from tests.kernel_contract import PrivilegedContract, RealWorld
from tests.support import needs_root


@needs_root
class RealKernelAsRoot(RealWorld, PrivilegedContract, SynchronousTestCase):
    """What root may ask of the real kernel."""
