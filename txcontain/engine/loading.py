"""What a manager can be asked about images."""

from __future__ import annotations

from functools import partial
from typing import Any

from twisted.internet.defer import Deferred

from txcontain.container.document import shown
from txcontain.container.reference import is_reference, read_reference
from txcontain.engine.images import Image, short_name
from txcontain.engine.manager import Manager
from txcontain.engine.transfers import packer_of
from txcontain.errors import InvalidData
from txcontain.images.layout import Found
from txcontain.images.oci import Step
from txcontain.images.packing import Stream


async def load(manager: Manager, stream: Stream, name: str | None = None) -> list[Image]:
    """Load the images of an archive: an OCI image layout, or what `docker save` writes.

    :param name: what to call the image; else as the archive says
    Raises InvalidData, ConfigAtFault, TooMany, MachineAtFault, CalledOff.
    """
    arrivals = manager.arrivals
    given = None if name is None else str(read_reference(name))
    what = "loading an image"
    async with arrivals.loading.turn(), arrivals.working(what) as folder:
        await packer_of(manager).unpack(what, stream, folder)
        found = await arrivals.find_in(folder)
        names = [_names(one, given, len(found)) for one in found]
        loaded = []
        for one, own in zip(found, names, strict=True):
            with manager.holding() as held:
                image = await arrivals.settle(one, own, held)
            manager.journal.add("image", f"{', '.join(own)} was loaded: {image.digest}")
            loaded.append(image)
    return loaded


def _names(found: Found, given: str | None, number: int) -> list[str]:
    if given is not None:
        if number > 1:
            raise InvalidData(f"the archive has {number} images: only one can be called {given}")
        return [given]
    names = [str(read_reference(name)) for name in found.names if is_reference(name)]
    if not names:
        said = f", only {shown(found.names[0])}" if found.names else ""
        raise InvalidData(f"the archive does not say what its image is called{said}", "name it")
    return list(dict.fromkeys(names))


async def pull(
    manager: Manager, name: str, insecure: bool = False, gone: Deferred[None] | None = None
) -> Image:
    """Get an image from its registry. Arguments and errors are those of ``Arrivals.pull``."""
    with manager.holding() as held:
        return await manager.arrivals.pull(name, held, insecure, gone)


async def remove(manager: Manager, text: str) -> list[str]:
    """Remove a name of an image, and the image with its last one; returns the names.

    Raises NoSuchImage, InUse, MachineAtFault.
    """
    removed = await manager.arrivals.images.remove(text, partial(users, manager))
    gone = list(map(short_name, removed))
    for name in gone:
        manager.journal.add("image", f"{name} was removed")
    manager.tidy_soon()
    return gone


def users(manager: Manager, digest: str) -> list[str]:
    """The names of the instances that use an image."""
    those = [one for one in manager.instances.values() if not one.is_over]
    return [one.name for one in those if one.image and one.image.digest == digest]


def told(manager: Manager, image: Image) -> dict[str, Any]:
    """What is known of an image, in short."""
    images, layers = manager.arrivals.images, manager.layers
    names = images.names_of(image.digest)
    paths = images.paths(image)
    return {
        "digest": image.digest,
        "names": [short_name(name) for name in names],
        "platform": str(image.config.platform),
        "created": image.config.created,
        "added": image.added,
        "layers": len(image.manifest.layers),
        "bytes": sum(layers.metadata(path).size for path in paths),
        "used_by": users(manager, image.digest),
    }


def history(image: Image) -> list[dict[str, Any]]:
    """How each layer of an image was made, the latest step first; some images don't say that."""
    layers = iter(image.manifest.layers)
    told = sum(not one.empty_layer for one in image.config.history)
    untold = [Step()] * (len(image.manifest.layers) - told)
    steps = []
    for one in (*image.config.history, *untold):
        layer = None if one.empty_layer else next(layers, None)
        steps.append(
            {
                "created": one.created,
                "created_by": one.created_by,
                "comment": one.comment,
                "layer": layer.digest if layer else None,
                "compressed": layer.size if layer else 0,
            }
        )
    return steps[::-1]
