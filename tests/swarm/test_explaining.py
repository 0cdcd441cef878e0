"""Services as commands of Docker's CLI: nothing of a service is left out in silence."""

import shlex
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.exports.test_documents import pairs, subject_of
from tests.exports.test_stacks import BESIDE, OF_UPDATE, VALUES
from tests.swarm.test_stacks import revision_of
from tests.swarm.test_swarm import WEB, SwarmCase
from txcontain import errors
from txcontain.services.document import KEYS, UPDATE_KEYS
from txcontain.swarm import mapping, stack_mapping
from txcontain.swarm.explaining import explain

HOSTILE = "a b'; reboot #\n\n$(reboot) `reboot` \\"


def words_of(script: str) -> list[str]:
    """The words that a shell reads in a script."""
    return shlex.split(script.replace(" \\\n    ", " "), comments=True)


class CommandTests(SynchronousTestCase):
    """From a service to a command."""

    def test_every_key(self) -> None:
        """Whatever key of a config changes the service changes the command."""
        changes = 0
        for key, one, other in pairs():
            made = [mapping.service_of(subject_of(**keys), "web-1") for keys in (one, other)]
            if made[0] != made[1]:
                self.assertNotEqual(explain(made[0]), explain(made[1]), f"{key} is kept quiet")
                changes += 1
        self.assertGreater(changes, 10)

    def test_every_key_of_stacks(self) -> None:
        """Whatever key of a stack's service changes the service changes the command."""
        cases = [(key, BESIDE.get(key, {}), {key: VALUES[key]}) for key in KEYS]
        cases += [(f"update.{key}", {}, {"update": {key: OF_UPDATE[key]}}) for key in UPDATE_KEYS]
        changes = 0
        for key, beside, change in cases:
            made: list[Any] = [
                stack_mapping.service_of("shop", "app", revision_of(**keys), subject_of())
                for keys in (beside, beside | change)
            ]
            for one in made:
                one["Labels"] = {}  # which have the document
            if made[0] != made[1]:
                self.assertNotEqual(explain(made[0]), explain(made[1]), f"{key} is kept quiet")
                changes += 1
        self.assertGreater(changes, 5)

    def test_words(self) -> None:
        """The command has the name, the image and the arguments, and makes its network first."""
        script = explain(mapping.service_of(subject_of(network="private", stop_timeout=2.5), "w-1"))
        words = words_of(script)
        self.assertEqual(words[:4], ["docker", "network", "inspect", "txcontain"])
        at = words.index("service")
        self.assertEqual(words[at - 1 : at + 2], ["docker", "service", "create"])
        for word in (
            "--name=txc-w-1",
            "--network=name=txcontain,alias=w-1,alias=web",
            "--stop-grace-period=2.5s",
        ):
            self.assertIn(word, words)
        self.assertEqual(words[-3:], [subject_of().image, "sleep", "infinity"])
        plain = explain(mapping.service_of(subject_of(), "w-1"))
        self.assertNotIn("docker network", plain)

    def test_hostile(self) -> None:
        """Whatever is in a service is a word, and never a command of its own."""
        service = mapping.service_of(subject_of(), "w-1")
        service["Labels"][HOSTILE] = HOSTILE
        container = service["TaskTemplate"]["ContainerSpec"]
        container["Args"], container["Hostname"] = [HOSTILE], HOSTILE
        service["TaskTemplate"]["Networks"] = [{"Target": HOSTILE}]
        words = words_of(explain(service))
        self.assertIn(f"--label={HOSTILE}={HOSTILE}", words)
        self.assertIn(f"--hostname={HOSTILE}", words)
        self.assertEqual((words[3], words[-1]), (HOSTILE, HOSTILE))


class ExplainTests(SwarmCase):
    """What a swarm explains."""

    def setUp(self) -> None:
        super().setUp()
        self.keep()
        self.fake.networks = {"host": "host"}

    def test_instance(self) -> None:
        """An instance is explained by its service, with the names of its networks."""
        name = self.launched()
        (service,) = self.fake.services.values()
        service["Spec"]["TaskTemplate"]["Networks"] = [{"Target": "h0s7"}]
        self.fake.networks = {"h0s7": "host"}
        script = self.now(self.swarm.explain(name))
        self.assertIn(f"--name=txc-{name}", script)
        self.assertIn("--network=name=host", script)
        self.refused(self.swarm.explain("nobody"), errors.NoSuchInstance)

    def test_config(self) -> None:
        """Of a config its image is put into the registry, and the swarm is asked for nothing."""
        words = words_of(self.now(self.swarm.explain_config("web-1-01.cfg")))
        self.assertEqual(len(self.exporter.published), 1)
        self.assertIn("127.0.0.1:5000/txcontain@sha256:0", words)
        self.assertEqual(self.fake.services, {})
        self.refused(self.swarm.explain_config("web-1-02.cfg"), errors.NoSuchConfig)

    def test_same_as_a_launch(self) -> None:
        """Both are the same command, but for the name."""
        name = self.launched()
        launched = self.now(self.swarm.explain(name))
        other = self.now(self.swarm.explain_config("-".join(WEB) + ".cfg"))
        (label,) = [word for word in words_of(other) if word.startswith("--hostname=")]
        another = label.removeprefix("--hostname=")
        self.assertEqual(other.replace(another, name), launched)
