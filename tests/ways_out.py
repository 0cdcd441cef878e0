"""What is tried against each wall beside its escape; ``docs/walls.md`` lists it.

Tests of ``tests.integration.test_wall`` are named by class and name, others with their module too.
"""

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

from txcontain.container.walls import WALLS

HERE = Path(__file__).parent / "integration"
OLDEST = "test_wall"

TRIED: Mapping[str, tuple[str, ...]] = {
    "mount namespace": (
        "HostTests.test_chroot",
        "HostTests.test_doors_of_proc",
        "HostTests.test_standard_input",
        "HostTests.test_rewriting_the_manager",
        "HostTests.test_managers_paths",
        "HostTests.test_links_of_an_image",
        "DescriptorTests.test_every_variant",
        "DescriptorTests.test_private_network",
        "DescriptorTests.test_user_namespace",
        "LibraryTests.test_nothing_of_the_image_is_imported",
        "JailTests.test_mounts_below_the_hosts_programs",
        "ImageTests.test_homes_behind_descriptors",
        "ImageTests.test_users_from_nowhere",
        "ImageTests.test_mounts_led_astray",
        "ImageTests.test_folders_named_like_options",
        "test_isolation.FileTests.test_two_of_one_config",
    ),
    "user namespace": (
        "test_user_namespace.IdentityTests.test_powers_are_over_its_own_alone",
        "test_user_namespace.ShareTests.test_all_of_it",
    ),
    "system calls": (
        "SystemCallTests.test_namespaces",
        "SystemCallTests.test_other_tables",
        "SystemCallTests.test_others_memory",
    ),
    "capabilities": (
        "SystemCallTests.test_sockets",
        "SystemCallTests.test_scheduling",
        "PrivilegeTests.test_devices",
        "ImageTests.test_device_in_an_image",
    ),
    "pid namespace": ("HostTests.test_end_of_the_monitor",),
    "network namespace": (
        "HostTests.test_abstract_sockets",
        "HostTests.test_the_hosts_network_is_shared_by_design",
    ),
    "new privileges": ("PrivilegeTests.test_file_capabilities",),
    "settings": (
        "PrivilegeTests.test_kernel_settings",
        "PrivilegeTests.test_what_is_meant_to_be_written",
    ),
    "ipc namespace": ("HostTests.test_posix_ipc",),
    "processes": ("HostTests.test_what_is_counted_for_a_user",),
    "no host folder": ("test_volumes.HostFolderTests.test_links",),
    "read-only root": (
        "ImageTests.test_mount_that_covers_its_own_way",
        "test_isolation.FileTests.test_no_remount",
    ),
}


def tests_of(wall: str) -> list[str]:
    """All tests that run against a wall, each with its module, that of the wall's card first."""
    first = next(one.test for one in WALLS if one.name == wall)
    more = [name if name.count(".") == 2 else f"{OLDEST}.{name}" for name in TRIED.get(wall, ())]
    return list(dict.fromkeys([first, *more]))


def sentences(module: str) -> Iterator[tuple[str, str]]:
    """Each test of an integration module, and the sentence that says what it proves."""
    for group in ast.parse((HERE / f"{module}.py").read_text()).body:
        if isinstance(group, ast.ClassDef):
            for test in group.body:
                if isinstance(test, ast.FunctionDef) and test.name.startswith("test_"):
                    said = (ast.get_docstring(test) or "").partition("\n\n")[0]
                    yield f"{module}.{group.name}.{test.name}", " ".join(said.split())


def proved_by(test: str) -> str:
    """What a test proves, which is named with its module."""
    return dict(sentences(test.partition(".")[0]))[test]
