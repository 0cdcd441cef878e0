"""What a config is in a swarm: nothing of it is left out in silence."""

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.exports.test_documents import PLATFORM, pairs, subject_of
from tests.support import make_spec
from tests.swarm.docker import task
from txcontain import errors
from txcontain.container.spec import KEYS
from txcontain.exports.image import image_config
from txcontain.exports.notes import made_of
from txcontain.images.oci import to_bytes
from txcontain.swarm.mapping import (
    LONGEST_CONFIG,
    LONGEST_NAME,
    MOST_WITHOUT_IMAGE,
    address_of,
    check,
    failure_of,
    has_begun,
    moment,
    name_of_config,
    name_of_service,
    service_of,
    worst,
)
from txcontain.swarm.records import Seen, running


def refusals(**keys: Any) -> list[str]:
    """What of a config a swarm can't keep."""
    try:
        check(make_spec(**keys))
    except errors.ConfigAtFault as error:
        return list(error.chain[1:])
    return []


def kept(**keys: Any) -> Any:
    """All that is made of a config."""
    subject = subject_of(**keys)
    image = to_bytes(image_config(subject, PLATFORM, [], made_of(subject.spec)))
    return image, service_of(subject, "web-1"), refusals(**keys)


class ConfigTests(SynchronousTestCase):
    """From a config to a service."""

    def test_every_key(self) -> None:
        """Whatever key changes, the service or its image does, or the key is refused by name."""
        tried = set()
        for key, one, other in pairs():
            no_check = ("health.http:", "health.tcp:") if key.startswith("health.") else ()
            named = any(text.startswith((f"{key}:", *no_check)) for text in refusals(**other))
            self.assertTrue(kept(**one) != kept(**other) or named, f"{key} is kept quiet: {other}")
            tried.add(key.partition(".")[0])
        self.assertEqual(tried, {*KEYS})

    def test_small(self) -> None:
        """A small config is one task on the host's network, told by its labels."""
        service = service_of(subject_of(), "web-1")
        self.assertEqual((service["Name"], refusals()), ("txc-web-1", []))
        self.assertEqual(
            service["Labels"],
            {
                "txcontain.instance": "web-1",
                "txcontain.name": "web",
                "txcontain.major": "1",
                "txcontain.minor": "01",
            },
        )
        self.assertEqual(service["TaskTemplate"]["Networks"], [{"Target": "host"}])
        self.assertEqual(service["TaskTemplate"]["RestartPolicy"]["Condition"], "none")
        container = service["TaskTemplate"]["ContainerSpec"]
        self.assertEqual(container["Args"], ["sleep", "infinity"])
        self.assertNotIn("Args", service_of(subject_of(command=["a"]), "x")["TaskTemplate"])

    def test_restarts(self) -> None:
        """What is never to be started again is not: to Docker, 0 attempts are no limit."""
        for most, wanted in (
            (None, {"Condition": "any"}),
            (3, {"Condition": "any", "MaxAttempts": 3}),
            (0, {"Condition": "none"}),
        ):
            more = {} if most is None else {"max_restarts": most}
            service = service_of(subject_of(restart="always", **more), "web-1")
            policy = service["TaskTemplate"]["RestartPolicy"]
            self.assertEqual(policy, {**wanted, "Delay": 100_000_000})

    def test_a_port_of_the_host(self) -> None:
        """A PORT is the node's, and declared: a second container is not placed on the same node."""
        service = service_of(subject_of(startup_env="PORT=8000"), "web-1")
        port = {"Protocol": "tcp", "TargetPort": 8000, "PublishedPort": 8000, "PublishMode": "host"}
        self.assertEqual(service["EndpointSpec"], {"Mode": "dnsrr", "Ports": [port]})

    def test_addresses_of_ports(self) -> None:
        """A port at one address of a node is refused, and what to write is said."""
        (said,) = refusals(network="private", ports=["8000:80"])
        self.assertIn("not at 127.0.0.1: write 0.0.0.0:8000:80/tcp", said)
        self.assertEqual(refusals(network="private", ports=["0.0.0.0:8000:80"]), [])

    def test_too_long(self) -> None:
        """A document that is longer than a config of a swarm is refused."""
        spec = make_spec(startup_env="A=" + "x" * 30_000)
        check(spec)
        object.__setattr__(spec, "document", "x" * (LONGEST_CONFIG + 1))
        self.assertRaises(errors.InvalidData, check, spec)

    def test_names(self) -> None:
        """Names in the swarm have only what it takes, and are never too long."""
        self.assertEqual(name_of_service("web-1-0a1b2c3d"), "txc-web-1-0a1b2c3d")
        self.assertEqual(name_of_service("My_web.1"), "txc-my-web-1-c025710fd5")
        for one, other in (("a.b", "a_b"), ("a.b", "a-b"), ("A", "a"), ("x" * 62, "x" * 63)):
            self.assertNotEqual(name_of_service(one), name_of_service(other))
        self.assertLessEqual(len(name_of_service("a" * 50 + "-0a1b2c3d")), LONGEST_NAME)
        self.assertTrue(name_of_service("a" * 50 + "-0a1b2c3d").endswith("0a1b2c3d"))
        self.assertRegex(name_of_config("é_.cfg"), "^txcontain-[0-9a-f]{40}$")


class TaskTests(SynchronousTestCase):
    """What tasks tell."""

    def test_failures(self) -> None:
        """Why a task can't begin is told by what the engine says; some of it may still change."""
        none = 'exec: "/run.sh": stat /run.sh: no such file or directory'
        rows: tuple[tuple[str, str, Any, str], ...] = (
            ("preparing", "", None, ""),
            ("running", "", None, ""),
            ("failed", "task: non-zero exit (3)", None, ""),
            ("failed", none, errors.NoSuchProgram, "there is no /run.sh in the container"),
            (
                "failed",
                "exec /run.sh: no such file or directory",
                errors.NoSuchProgram,
                "/run.sh needs an interpreter that is not there",
            ),
            ("failed", 'exec: "/run.sh": permission denied', errors.CannotRun, "can't be run"),
            ("rejected", "No such image: x", errors.MachineAtFault, "could not get the image"),
            ("rejected", "whatever", errors.ConfigAtFault, "the container did not start"),
            ("pending", "no suitable node (1 node not available for new tasks)", None, ""),
            (
                "pending",
                "no suitable node (host-mode port already in use on 2 nodes)",
                errors.ConfigAtFault,
                "each node has a container at this port already",
            ),
            (
                "pending",
                "no suitable node (1 node not available for new tasks; host-mode port already in "
                "use on 1 node)",
                None,
                "",
            ),
        )
        for state, said, kind, words in rows:
            error = failure_of(task("s", state, said), "/run.sh")
            self.assertEqual(type(error), kind or type(None), said)
            self.assertIn(words, str(error))

    def test_begun(self) -> None:
        """A program that has ended by itself was started all the same."""
        rows: tuple[tuple[str, str, bool], ...] = (
            ("running", "", True),
            ("complete", "", True),
            ("failed", "task: non-zero exit (3)", True),
            ("failed", "starting container failed", False),
            ("starting", "", False),
        )
        for state, said, begun in rows:
            self.assertEqual(has_begun(task("s", state, said)), begun, said)

    def test_worst(self) -> None:
        """What a config is at fault for ends a launch; so do some nodes that get no image."""
        fault, no_image = errors.ConfigAtFault("a"), errors.MachineAtFault("b")
        rows: tuple[tuple[list[errors.Error], str, Any], ...] = (
            ([], "always", None),
            ([no_image], "no", no_image),
            ([no_image] * (MOST_WITHOUT_IMAGE - 1), "always", None),
            ([no_image] * MOST_WITHOUT_IMAGE, "always", no_image),
            ([no_image, fault], "always", fault),
        )
        for failures, restart, wanted in rows:
            self.assertIs(worst(failures, restart), wanted)

    def test_running(self) -> None:
        """Instances are in the order of their launch, also if a fraction ends with zeros."""
        services: list[Any] = [
            {"ID": name, "CreatedAt": at, "Spec": service_of(subject_of(), name)}
            for name, at in (
                ("late", "2026-01-01T00:00:00.15Z"),
                ("early", "2026-01-01T00:00:00.149999999Z"),
                ("ended", "2026-01-01T00:00:00Z"),
            )
        ]
        services.append({"ID": "other", "CreatedAt": "", "Spec": {"Labels": None}})
        tasks = [task(one["ID"], "running") for one in services if one["ID"] != "ended"]
        tasks.append(task("ended", "complete"))
        listed = [one["instance"] for one in running(Seen(services, tasks))]
        self.assertEqual(listed, ["early", "late"])
        self.assertLess(moment("2026-01-01T00:00:00Z"), moment("2026-01-01T00:00:00.1Z"))

    def test_addresses(self) -> None:
        """A manager that tells no address of its own as a node tells one as a manager."""
        for status, manager, address in (
            ({"Addr": "192.0.2.1"}, None, "192.0.2.1"),
            ({"Addr": "0.0.0.0"}, {"Addr": "192.0.2.2:2377"}, "192.0.2.2"),
            ({}, {"Addr": "[2001:db8::1]:2377"}, "2001:db8::1"),
        ):
            node = {"Status": status, "ManagerStatus": manager}
            self.assertEqual(address_of(node), address)
