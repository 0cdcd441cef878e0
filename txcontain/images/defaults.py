"""What the config of an image means for a config of ours (image-spec, config.md)."""

from __future__ import annotations

from typing import Any

from txcontain.container.defaults import Used
from txcontain.container.health import LONGEST, SHORTEST
from txcontain.images.oci import Healthcheck, ImageConfig

NANOSECONDS = 10**9
# What Docker takes for a duration or a number of a check that is 0.
CHECK = {"interval": 30.0, "timeout": 30.0, "start_period": 0.0, "start_interval": 5.0}
RETRIES = 3


def used(name: str, digest: str, image: ImageConfig) -> Used:
    """What a launch needs to know of an image."""
    return Used(name, digest, defaults_of(image), tuple(image.exposed_ports), tuple(image.volumes))


def defaults_of(image: ImageConfig) -> dict[str, Any]:
    """The defaults for keys of a config, as they are written there.

    Images expect that they can write anywhere in their root, as Docker lets them: the paths of
    their volumes are writable too, and last as long as the instance.
    """
    said = {
        "command": [*image.entrypoint, *image.cmd],
        "startup_env": [text for text in image.env if "=" in text],
        "startup_owner": image.user,
        "workdir": image.working_dir,
        "stop_signal": image.stop_signal,
        "health": _health(image.healthcheck),
        "writable_root": True,
    }
    return {key: value for key, value in said.items() if value}


def _health(check: Healthcheck | None) -> dict[str, Any] | None:
    command = _command(check)
    if check is None or not command:
        return None
    durations = {name: getattr(check, name) / NANOSECONDS or usual for name, usual in CHECK.items()}
    return {
        "command": command,
        "interval": _within(durations["interval"], SHORTEST),
        "timeout": min(max(durations["timeout"], 0.01), 3600.0),
        "start_period": _within(durations["start_period"], 0.0),
        "start_interval": _within(durations["start_interval"], SHORTEST),
        "retries": min(check.retries, 1000) or RETRIES,
        "on_failure": "none",  # Docker only tells that it is unhealthy
    }


def _within(seconds: float, least: float) -> float:
    return min(max(seconds, least), LONGEST)


def _command(check: Healthcheck | None) -> list[str]:
    match list(check.test) if check else []:
        case ["CMD", *words]:
            return words
        case ["CMD-SHELL", text]:
            return ["/bin/sh", "-c", text]
        case _:  # NONE, or nothing
            return []
