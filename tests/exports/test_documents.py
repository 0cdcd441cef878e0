"""Configs as documents of other tools: nothing of a config is left out in silence."""

import re
from collections.abc import Callable, Iterator
from typing import Any
from zlib import crc32

import kubernetes_validate
import yaml
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.container.test_spec import NEEDED, TAKEN
from tests.support import document, make_spec
from txcontain.container.health import CHECK_KEYS
from txcontain.container.spec import KEYS, LIMITS, from_json
from txcontain.exports.compose import to_compose
from txcontain.exports.image import image_config, notes_of
from txcontain.exports.kubernetes import to_kubernetes
from txcontain.exports.notes import made_of
from txcontain.exports.quadlet import to_quadlet
from txcontain.exports.subject import ROOT, Account, Subject, image_of, label, owners_of
from txcontain.exports.written import Document, to_yaml
from txcontain.images.oci import Platform, to_bytes

PLATFORM = Platform("linux", "amd64")
# Values of keys within others, and what they take beside them.
OF_LIMITS: dict[str, Any] = {
    "memory": "64M",
    "swap": "64M",
    "cpus": 0.5,
    "pids": 7,
    "io_weight": 7,
    "files": 70,
    "disk": "64M",
}
OF_HEALTH: dict[str, Any] = {
    "http": "/x",
    "port": 81,
    "status": 204,
    "tcp": 81,
    "command": ["check", "it's", "$x"],
    "interval": 7.5,
    "timeout": 7.5,
    "start_period": 7.5,
    "start_interval": 7.5,
    "retries": 7,
    "on_failure": "stop",
}
EVERYTHING: dict[str, Any] = {
    "mounts": ["app.tar /opt/app READ", "data.tar /data READWRITE"],
    "volumes": ["Data_1 /var/lib/x", "/srv/x /x READ"],
    "command": ["run it", "--with=$HOME", "%h", ";"],
    "workdir": "/opt/app",
    "startup_owner": "www-data",
    "files": [{"path": "/etc/app.conf", "content": "a: 1\n"}, {"path": "/b", "from": "b.bin"}],
    "secrets": ["Db_pass /run/db 0440 www-data"],
    "startup_env": {"A": "$x", "B": "yes", "PORT": "8080"},
    "init": True,
    "tty": True,
    "restart": "on-failure",
    "max_restarts": 3,
    "stop_timeout": 1.5,
    "stop_signal": "RTMIN+3",
    "limits": {**OF_LIMITS},
    "shm_size": "1M",
    "tmp_size": "1M",
    "user_namespace": True,
    "manage": True,
    "network": "private",
    "ports": ["8080:80", "[::]:53:53/udp"],
    "health": {"command": ["check"], "start_period": 10},
}


def subject_of(**keys: Any) -> Subject:
    """A config with these keys, as what is exported."""
    spec = from_json(document(**keys))
    accounts = {owner: account(owner) for owner in owners_of(spec)}
    return Subject(spec, image_of(spec), accounts, {"b.bin": b"\xff", "app.conf": b"c"})


def account(owner: str) -> Account:
    """Someone in an image that has one user beside root, and another for each number."""
    if owner in ("root", "www-data"):
        return ROOT if owner == "root" else Account(33, 34, owner, "/var/www")
    return Account(crc32(owner.encode()), 34, owner, "/")


def to_image(subject: Subject) -> Document:
    """An image's config, as a document."""
    config = image_config(subject, PLATFORM, [], made_of(subject.spec))
    return Document(to_bytes(config).decode(), notes_of(subject))


TARGETS: dict[str, Callable[[Subject], Document]] = {
    "compose": to_compose,
    "kubernetes": to_kubernetes,
    "systemd": to_quadlet,
    "image": to_image,
}


def pairs() -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """For each key of a config, two configs that differ in this key alone."""
    for key in KEYS:
        beside = NEEDED.get(key, {})
        for given_, kept in TAKEN[key]:
            if kept != getattr(make_spec(**beside), key):
                yield key, beside, {**beside, key: given_}
    for key in LIMITS:
        beside = {"memory": "32M"} if key == "swap" else {}
        yield f"limits.{key}", {"limits": beside}, {"limits": {**beside, key: OF_LIMITS[key]}}
    for key in CHECK_KEYS:
        for form in ({"http": "/"}, {"tcp": 80}, {"command": ["true"]}):
            if key in ("port", "status") and "http" not in form:
                continue
            health = {"port": 80, **form} if "http" in form else form
            other = {
                **(health if key not in ("http", "tcp", "command") else {}),
                key: OF_HEALTH[key],
            }
            other |= {"port": 80} if key == "http" else {}
            if key == "start_interval":  # it matters only in a start_period
                health, other = ({"start_period": 9, **one} for one in (health, other))
            yield f"health.{key}", {"health": health}, {"health": other}


class Keys(SynchronousTestCase):
    """All that a config can say is expressed in each target, or named."""

    def test_every_key(self) -> None:
        """Whatever key changes, the document changes, or what is said of it."""
        tried = set()
        for key, one, other in pairs():
            for target, convert in TARGETS.items():
                before, after = convert(subject_of(**one)), convert(subject_of(**other))
                same = (before.text, before.notes) == (after.text, after.notes)
                # Either it is named, or that there is no check at all.
                named = (f"{key}:", *["health.http:", "health.tcp:"] * key.startswith("health."))
                same = same and not any(note.startswith(named) for note in after.notes)
                self.assertFalse(same, f"{target} keeps {key} quiet: {other}")
            tried.add(key.partition(".")[0])
        self.assertEqual(tried, set(KEYS))

    def test_notes_are_in_the_document(self) -> None:
        """What a target can't say is in the document as a comment, and names a key."""
        for target, convert in TARGETS.items():
            told = convert(subject_of(**EVERYTHING))
            self.assertGreater(len(told.notes), 3)
            for note in told.notes:
                comment = note if target == "image" else f"\n# - {note}\n"
                self.assertIn(comment, told.text)
                for key in note.partition(":")[0].split(", "):
                    self.assertIn(key.partition(".")[0], KEYS, note)

    def test_nothing_to_say(self) -> None:
        """Of a config that all can express, nothing is said."""
        for target, convert in TARGETS.items():
            keys = {} if target == "image" else {"restart": "always", "network": "private"}
            self.assertEqual(convert(subject_of(command=["a"], **keys)).notes, [], target)

    def test_twice(self) -> None:
        """The same config becomes the same bytes."""
        for convert in TARGETS.values():
            one, other = (convert(subject_of(**EVERYTHING)) for _ in range(2))
            self.assertEqual(one, other)

    def test_files_under_memory(self) -> None:
        """Where a folder in memory begins empty, files that the image has there are named."""
        for target in ("compose", "kubernetes"):
            subject = evolve(subject_of(command=["a"]), covered=["/var/tmp"])
            notes = [note for note in TARGETS[target](subject).notes if "/var/tmp" in note]
            self.assertEqual(len(notes), 1, target)


class Texts(SynchronousTestCase):
    """No text of a config becomes anything else."""

    @given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=50))
    def test_yaml(self, text: str) -> None:
        """Every reader of YAML gives back each text as it was."""
        self.assertEqual(yaml.safe_load(to_yaml({"a": text})), {"a": text})

    def test_words_that_are_taken_for_something_else(self) -> None:
        """What YAML 1.1 or 1.2 may take for a number, a time or a truth value is in quotes."""
        for (
            text
        ) in "yes No on y ~ null 1 1e3 0o7 0x1f 1:30 .5 .inf NaN 2001-01-01 = - -1 +1".split():
            self.assertEqual(to_yaml({"a": text}), f'a: "{text}"\n')
        for text in ("/bin/sh", "web", "on-failure", "a.b"):
            self.assertEqual(to_yaml({"a": text}), f"a: {text}\n")

    def test_compose_variables(self) -> None:
        """In a Compose file a '$' begins no variable."""
        told = yaml.safe_load(to_compose(subject_of(**EVERYTHING)).text)["services"]["web"]
        self.assertEqual(told["command"], ["run it", "--with=$$HOME", "%h", ";"])
        self.assertEqual(told["environment"]["A"], "$$x")

    def test_kubernetes_variables(self) -> None:
        """In a Pod '$(NAME)' stands for no variable, and other '$' are as they are."""
        texts = ["$", "$$", "$x", "$(x)", "a$$(x)", "$$$", "$$x$"]
        told = next(yaml.safe_load_all(to_kubernetes(subject_of(command=["a", *texts])).text))
        _, *written = told["spec"]["template"]["spec"]["containers"][0]["command"]
        self.assertEqual(written[:4], ["$", "$$$", "$x", "$$(x)"])
        # As its expansion.Expand reads them (k8s.io/kubernetes/third_party/forked/golang).
        read = [re.sub(r"\$(\$|\(x\))", r"\1", text) for text in written]
        self.assertEqual(read, texts)

    def test_systemd_specifiers(self) -> None:
        """In a Quadlet '%' and '$' stand for themselves, and a line has no end in it."""
        told = to_quadlet(subject_of(startup_env={"A": 'a"\n\\%h$x'}, command=["a b", "%h"])).text
        self.assertIn('Environment="A=a\\"\\n\\\\%%h$$x"\n', told)
        self.assertIn('Exec="a b" "%%h"\n', told)

    def test_comments_end_with_their_line(self) -> None:
        """Above the document itself, every line is a comment."""
        for convert, first in ((to_compose, "services:"), (to_quadlet, "[Unit]")):
            head, _, _ = convert(subject_of(**EVERYTHING)).text.partition(first)
            self.assertTrue(all(line[:1] in ("#", "") for line in head.splitlines()))


class Shapes(SynchronousTestCase):
    """The documents are what their tools take."""

    def test_kubernetes_schema(self) -> None:
        """Every object fits the schema of Kubernetes."""
        for health in ({"http": "/", "port": 80}, {"tcp": 80}):
            self.assert_valid(subject_of(health=health))
        self.assert_valid(subject_of(**EVERYTHING))

    def assert_valid(self, subject: Subject) -> None:
        """Fail unless all objects are ones that Kubernetes takes."""
        names = []
        for told in yaml.safe_load_all(to_kubernetes(subject).text):
            kubernetes_validate.validate(told, "1.30", strict=True)
            names.append(told["metadata"]["name"])
        for name in names:
            self.assertRegex(name, "^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")

    def test_kubernetes_objects(self) -> None:
        """A config with ports and files has a Service and a ConfigMap, which fit together."""
        deployment, service, files = yaml.safe_load_all(
            to_kubernetes(subject_of(**EVERYTHING)).text
        )
        kinds = [one["kind"] for one in (deployment, service, files)]
        self.assertEqual(kinds, ["Deployment", "Service", "ConfigMap"])
        pod = deployment["spec"]["template"]
        self.assertEqual(
            pod["metadata"]["labels"] | service["spec"]["selector"], pod["metadata"]["labels"]
        )
        self.assertEqual(files["data"], {"0-app.conf": "a: 1\n"})
        self.assertEqual(files["binaryData"], {"1-b": "/w=="})
        volumes = {one["name"]: one for one in pod["spec"]["volumes"]}
        self.assertEqual(volumes["files"]["configMap"]["name"], files["metadata"]["name"])
        mounts = pod["spec"]["containers"][0]["volumeMounts"]
        self.assertEqual({one["name"] for one in mounts}, set(volumes))
        self.assertEqual(pod["spec"]["containers"][0]["securityContext"]["runAsUser"], 33)

    def test_compose(self) -> None:
        """A Compose file has what the config says, in Compose's words."""
        told = yaml.safe_load(to_compose(subject_of(**EVERYTHING)).text)
        service = told["services"]["web"]
        self.assertEqual(told["volumes"], {"Data_1": {}})
        self.assertEqual(told["secrets"], {"Db_pass": {"file": "./secrets/Db_pass"}})
        for key, value in {
            "image": "web:1-01",
            "user": "www-data",
            "restart": "on-failure:3",
            "stop_signal": "SIGRTMIN+3",
            "stop_grace_period": "1500ms",
            "mem_limit": 64 << 20,
            "memswap_limit": 128 << 20,
            "cpus": 0.5,
            "ulimits": {"nofile": 70},
            "ports": ["127.0.0.1:8080:80/tcp", "[::]:53:53/udp"],
            "read_only": True,
        }.items():
            self.assertEqual(service[key], value, key)

    def test_bounds_that_docker_reads_otherwise(self) -> None:
        """Nothing is bounded that the config leaves free, nor free what it bounds."""
        for keys, key, value in (
            ({"limits": {"memory": "1M"}}, "memswap_limit", -1),
            ({"limits": {"memory": "1M", "swap": 0}}, "memswap_limit", 1 << 20),
            ({"restart": "on-failure", "max_restarts": 0}, "restart", "no"),
            ({"restart": "on-failure"}, "restart", "on-failure"),
        ):
            told = yaml.safe_load(to_compose(subject_of(**keys)).text)["services"]["web"]
            self.assertEqual(told[key], value)
        self.assertNotIn("memswap_limit", to_compose(subject_of()).text)

    def test_systemd(self) -> None:
        """A Quadlet has sections, and each line of them a key that podman-systemd.unit(5) has."""
        told = to_quadlet(subject_of(**EVERYTHING)).text
        lines = [line for line in told.splitlines() if line and line[0] != "#"]
        sections = [line for line in lines if line[0] == "["]
        self.assertEqual(sections, ["[Unit]", "[Container]", "[Service]", "[Install]"])
        for line in lines:
            self.assertRegex(line, r"^\[[A-Z][a-z]+\]$|^[A-Z][A-Za-z]+=\S")
        self.assertIn("Image=localhost/web:1-01", lines)
        self.assertIn("IOWeight=7", lines)

    def test_image(self) -> None:
        """The history of an image names each layer, and then what it can't say."""
        subject = subject_of(**EVERYTHING)
        config = image_config(subject, PLATFORM, ["sha256:" + "0" * 64], made_of(subject.spec))
        layers = [step.created_by for step in config.history if not step.empty_layer]
        self.assertEqual(layers, ["basefs.tar.gz", "data.tar at /data", "app.tar at /opt/app"])
        self.assertEqual(config.volumes, ["/data", "/var/lib/x", "/x"])
        self.assertEqual(config.exposed_ports, ["53/udp", "80/tcp", "8080/tcp"])

    def test_names(self) -> None:
        """A config's name becomes one that a registry, or Kubernetes, takes."""
        for name, image, in_kubernetes in (
            ("web", "web", "web"),
            ("Web_1.2-", "web-1-2", "web-1-2"),
            ("__", "image", "unnamed"),
            ("a" * 50, "a" * 50, "a" * 50),
        ):
            self.assertEqual(image_of(subject_of(name=name).spec), f"{image}:1-01")
            self.assertEqual(label(name), in_kubernetes)
        self.assertTrue(re.fullmatch("[a-z0-9-]+", label("x" * 99)))
