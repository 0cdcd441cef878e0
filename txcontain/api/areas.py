"""All areas of the API, by the tag that their operations have in the OpenAPI document."""

from __future__ import annotations

from txcontain.api.area import Area
from txcontain.api.changes import Changes
from txcontain.api.configs import Configs
from txcontain.api.disk import Disk
from txcontain.api.events import Events
from txcontain.api.execs import Execs
from txcontain.api.explaining import Explaining
from txcontain.api.figures import Figures
from txcontain.api.files import Files
from txcontain.api.images import Images
from txcontain.api.instances import Instances
from txcontain.api.life import Life
from txcontain.api.logs import Logs
from txcontain.api.metrics import Metrics
from txcontain.api.nodes import Nodes
from txcontain.api.secrets import Secrets
from txcontain.api.services import Services
from txcontain.api.steps import Stepping
from txcontain.api.system import System
from txcontain.api.v1 import V1
from txcontain.api.volumes import Volumes
from txcontain.api.walls import Walls

AREAS: dict[str, type[Area]] = {
    "v1": V1,
    "configs": Configs,
    "secrets": Secrets,
    "instances": Instances,
    "explain": Explaining,
    "walls": Walls,
    "steps": Stepping,
    "life": Life,
    "figures": Figures,
    "metrics": Metrics,
    "logs": Logs,
    "exec": Execs,
    "files": Files,
    "changes": Changes,
    "events": Events,
    "disk": Disk,
    "volumes": Volumes,
    "images": Images,
    "services": Services,
    "nodes": Nodes,
    "system": System,
}
