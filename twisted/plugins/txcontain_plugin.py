"""Makes ``twistd containerd-lite`` known to twistd."""

from twisted.application.service import ServiceMaker

containerd_lite = ServiceMaker(
    "txcontain", "txcontain.tap", "A small container manager with a REST API.", "containerd-lite"
)
