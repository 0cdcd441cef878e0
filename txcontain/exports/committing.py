"""Keeps an instance as an image: what it was launched from, and what it has written since."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

from attrs import define, evolve
from twisted.internet.defer import Deferred, succeed

from txcontain.container.document import refuse
from txcontain.engine.files import frozen
from txcontain.engine.loading import load
from txcontain.engine.manager import Manager
from txcontain.errors import CannotCopy, NotRunning
from txcontain.exports.exporting import exporter_of, read_name
from txcontain.exports.subject import in_order
from txcontain.images.oci_writing import Tree, archive
from txcontain.images.pushing import Body
from txcontain.runtime.instance import Instance


async def commit(manager: Manager, instance: Instance, name: str) -> dict[str, Any]:
    """Keep an instance as an image; its processes stand still meanwhile.

    :param name: what to call it: [REGISTRY/]REPOSITORY[:TAG]
    Raises InvalidData, NotRunning, CannotCopy, ConfigAtFault, TooMany, MachineAtFault.
    """
    exporter, reference = exporter_of(manager), read_name(name, "kept")
    _check(instance)
    held = manager.holding(instance.layers)
    async with exporter.turns.turn(), frozen(manager, instance, instance.running):
        with held:
            if not await manager.threads(manager.layers.are_there, instance.layers):
                hint = "destroy it, and launch its config again"
                raise CannotCopy(
                    f"the images of {instance.name} were removed, as it had ended", hint
                )
            gathered = await exporter.gather(instance.spec, name, instance.layers)
            trees = [*_with_written(instance, gathered.layers)]
            made = await exporter.image(evolve(gathered, layers=trees))
            stream = Outgoing(Body(manager.threads, archive(made), 0))
            try:
                (kept,) = await load(manager, stream, str(reference))
            except Exception as error:
                raise stream.body.failed or error from error
    text = f"it was kept as {reference}"
    manager.journal.add("committed", text, instance=instance.name)
    return {"image": reference.short, "digest": kept.digest, "layers": len(trees)}


def _check(instance: Instance) -> None:
    """Raise NotRunning or InvalidData if what it wrote can't be read."""
    spec = instance.spec
    if instance.state == "failed":
        raise NotRunning(f"{instance.name} has no files: its launch failed", "launch it again")
    if spec.limits.disk is not None or spec.disk_size is not None:
        refuse(
            f"what {instance.name} writes is in a file system of its own (limits.disk, disk_size)",
            f"keep a mount of it: `txcontain commit {instance.name} NAME.tar`",
        )


def _with_written(instance: Instance, trees: Sequence[Tree]) -> Iterator[Tree]:
    """The layers it was launched from, and on each the one that it has written."""
    spec = instance.spec
    mounts = in_order(spec)
    of_base = len(trees) - len(mounts)
    yield from trees[:of_base]
    if spec.writable_root:
        yield _written(instance, "base", "/")
    for mount, tree in zip(mounts, trees[of_base:], strict=True):
        yield tree
        if mount.writable:
            yield _written(instance, str(spec.mounts.index(mount)), tree.target)


def _written(instance: Instance, name: str, target: str) -> Tree:
    folder = os.path.join(instance.folder, f"{name}-upper")
    title = f"written by {instance.name} below {target}"
    return Tree(folder, target, title, first_id=instance.ids or 0)


@define(eq=False)
class Outgoing:
    """An archive, as what a client sends."""

    body: Body

    def peek(self, length: int) -> Deferred[bytes]:
        """Its first bytes; none: it is not compressed."""
        return succeed(b"")

    def deliver(self, consumer: Any) -> Deferred[None]:
        """Hand on everything; fires when it has ended, and fails if it can't be read."""
        consumer.registerProducer(self.body, True)

        def over(outcome: Any) -> Any:
            consumer.unregisterProducer()
            return outcome

        return self.body.startProducing(consumer).addBoth(over)
