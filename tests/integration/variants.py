"""Variants of a config: in any two of them together, a container is made of all that there is."""

from __future__ import annotations

import itertools
from typing import Any

from tests.images.archives import image
from tests.integration.harness import ManagerCase
from tests.integration.tarballs import file, folder, small_image

# Of each key, the values of which every two are in a container together.
NESTED = (" READ", "/in READWRITE", "/in/it READ")
KEYS: dict[str, list[dict[str, Any]]] = {
    "user_namespace": [{}, {"user_namespace": True}],
    "network": [{}, {"network": "none"}, {"network": "private"}],
    "disk": [{}, {"limits": {"disk": "8M"}}, {"disk_size": "16M"}],
    "limits": [{}, {"limits": {"memory": "64M", "pids": 50, "cpus": 0.5, "files": 99}}],
    "root": [{}, {"writable_root": True, "restart": "on-failure"}],
    "owner": [{}, {"startup_owner": "worker"}, {"startup_owner": "1000:crew", "workdir": "/data"}],
    "init": [{}, {"init": True}],
    "tty": [{}, {"tty": True}],
    "volumes": [
        {},
        {"volumes": ["v /srv/deep"]},
        {"volumes": ["FOLDER /www READ"]},
        {"volumes": ["bounded /srv/deep"]},
    ],
    "files": [
        {},
        {
            "files": [{"path": "/etc/a/own", "content": "it's", "owner": "worker", "mode": "0600"}],
            "secrets": ["key /run/secrets/key"],
        },
    ],
    "mounts": [
        {"mounts": ["data.tar /data READ"]},
        {"mounts": ["data.tar /data READWRITE", "data.tar /new/deep READ"]},
        {"mounts": [f"data.tar /data{path}" for path in NESTED]},
    ],
    "image": [{}, {"base_image": "oci:1"}],
    "sizes": [{}, {"shm_size": "1M", "tmp_size": "2M"}],
    "variables": [{}, {"startup_env": {"A": "1 2", "B": "${A}'$x", "HOME": "/srv"}}],
}


def pairwise() -> list[dict[str, Any]]:
    """Configs in which any two values of different keys are together at least once."""
    wanted = {
        frozenset([(one, i), (two, j)])
        for one, two in itertools.combinations(KEYS, 2)
        for i in range(len(KEYS[one]))
        for j in range(len(KEYS[two]))
    }
    rows = []
    while wanted:
        row = dict(sorted(min(wanted, key=sorted)))
        for key in (key for key in KEYS if key not in row):
            chosen = row.items()
            row[key] = max(
                range(len(KEYS[key])),
                key=lambda i: sum(frozenset([one, (key, i)]) in wanted for one in chosen),
            )
        wanted -= {frozenset(pair) for pair in itertools.combinations(row.items(), 2)}
        rows.append({key: KEYS[key][i] for key, i in row.items()})
    return rows


def config_of(row: dict[str, Any], host_folder: str) -> dict[str, Any]:
    """The keys of a config."""
    keys: dict[str, Any] = {}
    for values in row.values():
        limits = {**keys.get("limits", {}), **values.get("limits", {})}
        keys |= {**values, **({"limits": limits} if limits else {})}
    keys["volumes"] = [one.replace("FOLDER", host_folder) for one in keys.get("volumes", [])]
    return keys


class VariantCase(ManagerCase):
    """A test with a manager that has what the variants name."""

    @property
    def options(self) -> tuple[str, ...]:  # type: ignore[override]  # the folder is the test's
        """Containers may have a folder of the test."""
        (self.folder / "www").mkdir(exist_ok=True)
        return ("--host-folders", str(self.folder / "www"))

    def setUp(self) -> None:
        super().setUp()
        self.mountable("data.tar", folder("."), file("potato", "fried"))
        self.assertEqual(self.ask("PUT", "/secrets/key", b"s3cret").status, 200)
        self.assertEqual(self.ask("PUT", "/volumes/bounded", {"size": "16M"}).status, 200)
        layers = [small_image(), [file("etc/own", "of the upper layer")]]
        loaded = self.ask("PUT", "/images", image(layers).archive("oci:1"))
        self.assertEqual(loaded.status, 200, loaded.reason)

    def variants(self) -> list[dict[str, Any]]:
        """The keys of each config."""
        return [config_of(row, str(self.folder / "www")) for row in pairwise()]
