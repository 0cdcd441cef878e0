"""All commands, in the order of the help.

A new one is a coroutine function and an entry in the table of its module; a new module is a line
here. Nothing here loads Twisted, so that help and a mistyped command answer at once.
"""

from txcontain.cli import (
    complete,
    configs,
    disk,
    events,
    exec,
    exports,
    files,
    images,
    instances,
    lesson,
    life,
    logs,
    nodes,
    pictures,
    ps,
    run,
    secrets,
    services,
    step,
    system,
    usage,
    v1,
    volumes,
)
from txcontain.cli.command import Command

OF_CHECKOUT: tuple[Command, ...] = (  # those in cli/, whose destroy is the course's
    *v1.COMMANDS,
    *configs.COMMANDS,
    *exports.COMMANDS,
    *secrets.COMMANDS,
    *run.COMMANDS,
    *ps.COMMANDS,
    *instances.COMMANDS,
    *pictures.COMMANDS,
    *step.COMMANDS,
    *life.COMMANDS,
    *exec.COMMANDS,
    *usage.COMMANDS,
    *disk.COMMANDS,
    *logs.COMMANDS,
    *events.COMMANDS,
    *volumes.COMMANDS,
    *images.COMMANDS,
    *files.COMMANDS,
    *services.COMMANDS,
    *nodes.COMMANDS,
    *system.COMMANDS,
    *lesson.COMMANDS,
    *complete.COMMANDS,
)
COMMANDS = tuple(life.DESTROY if one is v1.DESTROY else one for one in OF_CHECKOUT)
