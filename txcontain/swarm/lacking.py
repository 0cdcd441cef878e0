"""Areas of the API that a swarm does not have, and what to do instead.

Docker tells its managers nothing of what is in a container of another node: only that one can.
"""

from __future__ import annotations

ON_ITS_NODE = "on the node of the instance, which `txcontain ps` shows"
LACKS = {
    "secrets": "put what a container needs into a mount",
    "walls": f"`docker inspect` shows how it is held {ON_ITS_NODE}",
    "steps": "a manager of one host steps through launches",
    "disk": "`docker system df` and `docker system prune` do it on each node",
    "volumes": "a volume is on one node, and a container may be moved to another: use a mount",
    "images": "the images of configs are in the registry of the swarm",
}
