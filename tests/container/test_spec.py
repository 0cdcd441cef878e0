"""The validator: what it takes, what it refuses, and why."""

import json
import sys
from typing import Any

from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support import document, make_spec
from txcontain.container import spec
from txcontain.container.document import LONGEST_DOCUMENT, _no_key_twice, read_object, shown
from txcontain.container.health import CHECK_KEYS, Health
from txcontain.container.small_files import Secret, SmallFile
from txcontain.container.spec import (
    KEYS,
    LIMITS,
    Limits,
    Mount,
    Port,
    Volume,
    fill_in,
    from_json,
    key_of,
)
from txcontain.errors import InvalidData, TooLarge

# A key's value that is refused, and a part of the reason.
REFUSED: dict[str, list[Any]] = {
    "name": ["", "-web", ".web", "a/b", "a b", "..", "é", "a" * 51, "a\n", 1, True, ["web"], {}],
    "major": ["", "1-2", "-1", ".1", "1/2", "1" * 33, 1, 1.0],
    "minor": ["", "01-", "..", "0\x00", "1 ", 1],
    "base_image": [
        "",
        "..",
        " x",
        "x\n",
        "é" * 128,
        "../x.tar",
        "/x.tar",
        "A/b.tar",
        "registry:port/app",
        "app:",
        "file:///etc/passwd",
        ".hidden",
        "-x.tar",
        7,
        [],
    ],
    "mounts": ["x.tar /x READ", {}, 1, [1], [None], ["x.tar /x READ"] * 65],
    "volumes": [
        "a /a",
        {},
        1,
        [1],
        [""],
        ["READ"],
        ["a"],
        ["a READ"],
        ["a /a WRITE"],
        ["a /a READ READ"],
        ["a b /a"],
        ["-a /a"],
        ["a/b /a"],
        [".a /a"],
        ["a" * 51 + " /a"],
        ["a a"],
        ["a /x/../y"],
        ["/srv/../etc /a"],
        ["a /a", "b /a"],
        ["a /a"] * 65,
    ],
    "startup_script": ["", "run.sh", "./run.sh", "/a/../b", "/..", "/a\n", "/\ud800", 1, []],
    "command": [
        "redis-server",
        [],
        {},
        [1],
        [""],
        [" ", "a"],
        ["a", None],
        ["a\0"],
        ["a", "\ud800"],
        ["a"] * 1001,
        ["a" * 32_001],
    ],
    "workdir": ["", "data", "./data", "/a/..", 1],
    "startup_owner": [
        "",
        "-1",
        "a b",
        "a:",
        ":a",
        "a:b:c",
        "1:-1",
        "4294967295",
        "0:4294967295",
        "99999999999",
        "root\n",
        0,
        "é",
        "$",
        "٣",
    ],
    "files": [{}, "/x", [{"path": "/x", "content": ""}] * 65],
    "secrets": [{}, "db /x", ["db /x"] * 65],
    "startup_env": [
        "A",
        "=1",
        "1A=1",
        "A B=1",
        "A-B=1",
        "A=1;B",
        "A=\x00",
        "A=\ud800",
        1,
        True,
        ["A"],
        ["=1"],
        [" A=1"],
        [1],
        [None],
        [["A", "1"]],
        ["A=\x00"],
        ["A=\udfff"],
        ["A=1"] * 1001,
        {"": "1"},
        {"A=": "1"},
        {"1A": "1"},
        {"A\n": "1"},
        {"A": None},
        {"A": True},
        {"A": 1.5},
        {"A": "\x00"},
        {"A": ["1"]},
    ],
    "init": [0, 1, "true", "", []],
    "tty": [0, 1, "true", "", []],
    "restart": ["", "yes", "NO", True, 1, ["no"], {}],
    "max_restarts": [-1, 1_000_001, 1.0, True, "1", []],
    "stop_timeout": [-1, -0.1, 3601, "2", False, [], 10**400],
    "stop_signal": [
        "",
        "FOO",
        "SIGSIG",
        "0",
        0,
        65,
        -1,
        15.0,
        True,
        "TERM ",
        "TERM+1",
        "RTMIN+99",
        "SIG",
        "SIG_DFL",
        [],
        "1" * 99,
    ],
    "log_max_size": ["", "10m", "10 M", "-1", "1.5M", 4095, "4095", "3K", -1, 1e6, True, "9" * 16],
    "log_max_files": [0, 101, 2.0, "3", True],
    "limits": ["256M", 1, True, []],
    "shm_size": [0, "4095", "x", -1, 1.5, True],
    "tmp_size": [0, "4095", "x", -1, 1.5, True],
    "disk_size": [0, "15M", "x", 1.5, True],
    "writable_root": [0, 1, "true", "", []],
    "user_namespace": [0, 1, "true", "", []],
    "manage": [0, 1, "true", "", []],
    "pull": ["", "Always", "if-not-present", True, 1],
    "per_connection": [0, 1, "true", "", []],
    "network": ["", "bridge", "Host", 1, True, ["host"], {}],
    "ports": ["80:80", {}, 1, ["1:1"] * 65, ["1:1", "127.0.0.1:1:2"]],
    "health": [
        "/health",
        True,
        [],
        {},
        {"interval": 1},
        {"http": "/", "tcp": 80},
        {"tcp": 80, "command": ["a"]},
        {"http": "/", "path": "/"},
        {"http": "/"},  # on which port?
        {"tcp": True},
    ],
}
HEALTH_REFUSED: dict[str, list[Any]] = {
    "http": ["", "health", "/a b", "/\n", "/é", "/" * 1025, 80, True, None],
    "port": [0, 65536, "80", True, None],
    "status": [99, 600, "200", [200], None],
    "tcp": [False, 0, 65536, "80", 80.0, None],
    "command": ["true", [], [1], ["\0"], None],
    "interval": [0, 0.09, 86_401, "1s", True, None],
    "timeout": [0, 0.001, 3601, "1", None],
    "start_period": [-1, 86_401, "1", None],
    "start_interval": [0, 0.09, 86_401, None],
    "retries": [0, 1001, 1.5, "3", None],
    "on_failure": ["kill", True, None],
}
LIMITS_REFUSED = {
    "memory": [0, 4096, "1023K", "256m", -1, 1e9, True, "", None, []],
    "swap": [-1, "x", 0.5, None],
    "cpus": [0, 0.001, -1, 1025, "1", True, None, {}],
    "pids": [0, -1, 1.5, "10", (1 << 22) + 1, True, None],
    "io_weight": [0, 10_001, 1.5, "100", None],
    "files": [2, (1 << 20) + 1, "100", 10.0, None],
    "disk": [0, "1023K", True, None],
}
MOUNTS_REFUSED = [
    "",
    "x.tar",
    "x.tar /x",
    "x.tar /x READ more",
    "x.tar /x read",
    "x.tar /x WRITE",
    "x.tar x READ",
    "x.tar /../x READ",
    "x.tar /a/.. READ",
    "../x.tar /x READ",
    "/x.tar /x READ",
    "a/x.tar /x READ",
    ".x.tar /x READ",
    "x.tar / READ",
    "x.tar /./ READ",
    "x.tar /proc READ",
    "x.tar //proc//sys READ",
    "x.tar /sys/x READWRITE",
    "x.tar /dev/./shm READWRITE",
    "x.tar\t/x READ",
    "x.tar\u00a0/x READ",
    "x.tar /\ud800 READ",
]
# A key's value that is taken, and what Spec keeps of it.
TAKEN: dict[str, Any] = {
    "name": [("a", "a"), ("web-1.2_x", "web-1.2_x"), ("a" * 50, "a" * 50), ("a--", "a--")],
    "major": [("1", "1"), ("1.2_3", "1.2_3"), ("0" * 32, "0" * 32)],
    "minor": [("01", "01"), ("a.", "a.")],
    "base_image": [
        ("x", "x"),
        ("x..tar.gz", "x..tar.gz"),
        ("a+b~1@2 (3).tar", "a+b~1@2 (3).tar"),
        ("é中.tar", "é中.tar"),
        ("é" * 127, "é" * 127),
        ("debian:12", "debian:12"),
        ("registry:5000/a/b@sha256:" + "0" * 64, "registry:5000/a/b@sha256:" + "0" * 64),
    ],
    "mounts": [
        ([], ()),
        (["x.tar /x READ"], (Mount("x.tar", "/x", False),)),
        (["a b+~ c.tar /x READ"], (Mount("a b+~ c.tar", "/x", False),)),
        (["x.tar //a/./b/ READWRITE"], (Mount("x.tar", "/a/b", True),)),
        ([" x.tar  /tmp READ "], (Mount("x.tar", "/tmp", False),)),
        (["a /x READ", "b /x/y READ"], (Mount("a", "/x", False), Mount("b", "/x/y", False))),
        (["x.tar /process READ"], (Mount("x.tar", "/process", False),)),
    ],
    "volumes": [
        ([], ()),
        (["a /x"], (Volume("a", "/x"),)),
        ([" a.b-1  //x/./y/ READ "], (Volume("a.b-1", "/x/y", False),)),
        (["a /x READWRITE", "a /y READ"], (Volume("a", "/x"), Volume("a", "/y", False))),
        (["/srv//www/ /w READ"], (Volume("/srv/www", "/w", False),)),
    ],
    "startup_script": [
        ("/run.sh", "/run.sh"),
        ("/a b/é", "/a b/é"),
        ("//a/./b", "/a/b"),
        ("/a/...", "/a/..."),
        (None, None),
    ],
    "command": [
        (["a"], ("a",)),
        (["/bin/sh", "-c", "echo\n é", ""], ("/bin/sh", "-c", "echo\n é", "")),
        (["a", "x" * 31_999], ("a", "x" * 31_999)),
    ],
    "workdir": [("/", "/"), ("//data/./x/", "/data/x")],
    "startup_owner": [
        ("0", "0"),
        ("4294967294", "4294967294"),
        ("1000:33", "1000:33"),
        ("www-data:adm", "www-data:adm"),
        ("a:b", "a:b"),
        ("www-data", "www-data"),
        ("samba$", "samba$"),
    ],
    "files": [
        ([], ()),
        (
            [{"path": "/etc//app.conf", "content": "a\0b\né"}],
            (SmallFile("/etc/app.conf", "a\0b\né"),),
        ),
        (
            [{"path": "/x", "from": "app.conf", "mode": "0755", "owner": "www:33"}],
            (SmallFile("/x", source="app.conf", mode=0o755, owner="www:33"),),
        ),
        ([{"path": "/x", "content": "é" * 131_072}], (SmallFile("/x", "é" * 131_072),)),
    ],
    "secrets": [
        ([], ()),
        (["db.pass /run/db"], (Secret("db.pass", "/run/db"),)),
        (
            ["db /x 440", "a /y 0400 www:33"],
            (Secret("db", "/x", 0o440), Secret("a", "/y", 0o400, "www:33")),
        ),
    ],
    "startup_env": [
        ("", ()),
        (" ; ;", ()),
        ("A=1", (("A", ("1",)),)),
        ("A=1;B= 2 ;", (("A", ("1",)), ("B", (" 2 ",)))),
        (" A = 1", (("A", (" 1",)),)),
        ("A=;A=b=c", (("A", ("",)), ("A", ("b=c",)))),
        ("A=$(x)`y`'\"é", (("A", ("$(x)`y`'\"é",)),)),
        ("A=x${B}${C}y", (("A", ("x", "B", "", "C", "y")),)),
        ("A=\t\u00a0;\n B=\r\n", (("A", ("\t\u00a0",)), ("B", ("\r\n",)))),
        ([], ()),
        (["A=x;${B}\n", "B=b=c"], (("A", ("x;${B}\n",)), ("B", ("b=c",)))),
        (["A=1", "A="], (("A", ("1",)), ("A", ("",)))),
        ({}, ()),
        ({"A": "x;${B}\n", "B": 10}, (("A", ("x;${B}\n",)), ("B", ("10",)))),
    ],
    "init": [(True, True), (False, False)],
    "tty": [(True, True), (False, False)],
    "restart": [("no", "no"), ("on-failure", "on-failure"), ("always", "always")],
    "max_restarts": [(0, 0), (1_000_000, 1_000_000)],
    "stop_timeout": [(0, 0), (0.5, 0.5), (3600, 3600)],
    "stop_signal": [
        ("TERM", 15),
        ("SIGQUIT", 3),
        ("usr1", 10),
        (1, 1),
        ("64", 64),
        ("SIGRTMIN+3", 37),
        ("RTMIN", 34),
    ],
    "log_max_size": [
        (4096, 4096),
        ("4096", 4096),
        ("4K", 4096),
        ("10M", 10 << 20),
        ("1G", 1 << 30),
        ("1T", 1 << 40),
    ],
    "log_max_files": [(1, 1), (100, 100)],
    "limits": [
        ({}, Limits()),
        ({"memory": "256M", "swap": 0}, Limits(memory=256 << 20, swap=0)),
        ({"cpus": 0.5, "pids": 1, "io_weight": 100}, Limits(cpus=0.5, pids=1, io_weight=100)),
        ({"files": 3, "disk": 1 << 20}, Limits(files=3, disk=1 << 20)),
    ],
    "shm_size": [("1G", 1 << 30), (4096, 4096)],
    "tmp_size": [("1G", 1 << 30), (4096, 4096)],
    "disk_size": [("16M", 1 << 24), (1 << 30, 1 << 30)],
    "writable_root": [(True, True), (False, False)],
    "user_namespace": [(True, True), (False, False)],
    "manage": [(True, True), (False, False)],
    "pull": [("missing", "missing"), ("always", "always"), ("never", "never")],
    "per_connection": [(True, True), (False, False)],
    "network": [("host", "host"), ("none", "none"), ("private", "private")],
    "ports": [
        ([], ()),
        (["8080:80"], (Port("127.0.0.1", 8080, 80, "tcp"),)),
        (["0.0.0.0:1:65535/tcp"], (Port("0.0.0.0", 1, 65535, "tcp"),)),
        (["1:2", "1:3/udp"], (Port("127.0.0.1", 1, 2, "tcp"), Port("127.0.0.1", 1, 3, "udp"))),
        (
            ["9.9.9.1:1:2", "9.9.9.2:1:2"],
            (Port("9.9.9.1", 1, 2, "tcp"), Port("9.9.9.2", 1, 2, "tcp")),
        ),
        (
            ["[2001:DB8:0::1]:1:2/udp", "[::]:1:2", "0.0.0.0:1:2"],
            (
                Port("2001:db8::1", 1, 2, "udp"),
                Port("::", 1, 2, "tcp"),
                Port("0.0.0.0", 1, 2, "tcp"),
            ),
        ),
    ],
    "health": [
        ({"http": "/a?b", "port": 80}, Health(http="/a?b", port=80)),
        ({"http": "/", "port": 80, "status": 204}, Health(http="/", port=80, status=204)),
        ({"tcp": 65_535}, Health(tcp=65_535)),
        ({"command": ["a"], "retries": 1}, Health(command=("a",), retries=1)),
        (
            {"tcp": 1, "interval": 0.1, "timeout": 0.01, "on_failure": "none"},
            Health(tcp=1, interval=0.1, timeout=0.01, on_failure="none"),
        ),
    ],
}
PORTS_REFUSED: list[object] = [
    80,
    {},
    None,
    "80:81\n",
    "",
    "80",
    "80:",
    ":80",
    "0:80",
    "80:0",
    "65536:80",
    "80:65536",
    "80:80/sctp",
    "80:80/",
    "80-81:80-81",
    "localhost:80:80",
    "1.2.3:80:80",
    "01.2.3.4:80:80",
    "256.0.0.1:80:80",
    "::1:80:80",
    "2001:db8::1:80:80",
    "[2001:db8::1:80:80",
    "[9.9.9.1]:80:80",
    "[2001:db8::1%eth0]:80:80",
    "-1:80",
    "8e1:80",
    " 80:80",
    "٨٠:80",
]
FILES_REFUSED = (
    ("/x", "files has objects such as"),
    ({"path": "/x"}, "either content or from"),
    ({"content": "x"}, "a path"),
    ({"path": "/x", "content": "", "from": "a"}, "either content or from"),
    ({"path": "/x", "content": "", "user": "a"}, "a file has no key 'user'"),
    ({"path": "x", "content": ""}, "path in files must be an absolute path"),
    ({"path": "/", "content": ""}, "no file can be put at '/'"),
    ({"path": "/a/../proc/x", "content": ""}, "path in files must be"),
    ({"path": "/dev/x", "content": ""}, "no file can be put at '/dev/x'"),
    ({"path": "/x", "content": 1}, "content in files must be a text"),
    ({"path": "/x", "content": "\ud800"}, "content in files must be a text"),
    ({"path": "/x", "from": "../etc/shadow"}, "from in files must be the plain name"),
    ({"path": "/x", "content": "", "mode": "4755"}, "mode in files must be"),
    ({"path": "/x", "content": "", "mode": 420}, "mode in files must be"),
    ({"path": "/x", "content": "", "owner": "a b"}, "owner in files must be USER"),
    ({"path": "/x", "content": "é" * 131_073}, "contents of more than 262144 bytes"),
)
SECRETS_REFUSED = (
    ("", "a secret is 'NAME"),
    ("db", "a secret is 'NAME"),
    ("../db /x", "a secret is 'NAME"),
    ("db /x 0400 root more", "a secret is 'NAME"),
    ("db x", "the path in secrets must be an absolute path"),
    ("db /proc/x", "no file can be put at '/proc/x'"),
    ("db /x 9", "the mode in secrets must be"),
    ("db /x 0400 a:b:c", "the owner in secrets must be USER"),
)
DEFAULTS = {
    "mounts": (),
    "volumes": (),
    "startup_script": None,
    "command": (),
    "workdir": None,
    "startup_owner": "root",
    "files": (),
    "secrets": (),
    "startup_env": (),
    "init": False,
    "tty": False,
    "restart": "no",
    "max_restarts": None,
    "stop_timeout": 2.0,
    "stop_signal": 15,
    "log_max_size": 10 << 20,
    "log_max_files": 3,
    "limits": Limits(),
    "shm_size": 64 << 20,
    "tmp_size": 256 << 20,
    "disk_size": None,
    "writable_root": False,
    "user_namespace": False,
    "manage": False,
    "pull": "missing",
    "per_connection": False,
    "network": "host",
    "ports": (),
    "health": None,
}
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


# What else a config must have for a key.
NEEDED: dict[str, dict[str, Any]] = {
    "ports": {"network": "private"},
    "per_connection": {"command": ["cat"]},
}


class Case(SynchronousTestCase):
    """Asserts that a document is refused."""

    def refused(self, text: bytes, reason: str, **options: Any) -> InvalidData:
        error = self.assertRaises(InvalidData, from_json, text, **options)
        self.assertIn(reason, str(error))
        self.assertTrue(str(error).isprintable())
        self.assertLess(len(str(error)), 500)
        return error


class Keys(Case):
    """Each key and its values."""

    def test_every_key_is_in_the_tables(self) -> None:
        """Each key has a test with a good value, a bad one, and its default."""
        self.assertEqual(set(TAKEN), set(KEYS))
        self.assertEqual(set(REFUSED), set(KEYS))
        self.assertEqual({*DEFAULTS, *spec.REQUIRED}, set(KEYS))

    def test_taken(self) -> None:
        """A good value is kept, in the form that the rest of the program relies on."""
        for key, pairs in TAKEN.items():
            for value, kept in pairs:
                text = json.dumps({**json.loads(document(**NEEDED.get(key, {}))), key: value})
                self.assertEqual(getattr(from_json(text.encode()), key), kept)

    def test_refused(self) -> None:
        """A bad value is refused by a sentence that names the key."""
        for key, values in REFUSED.items():
            for value in values:
                self.refused(document(**{key: value}), f"{key} ")

    def test_null_is_no_value(self) -> None:
        """Only startup_script may be null: no script."""
        for key in set(KEYS) - {"startup_script"}:
            self.refused(json.dumps({**json.loads(document()), key: None}).encode(), key)

    def test_mounts_refused(self) -> None:
        """A mount is refused if it is malformed, or where no mount may be."""
        for line in MOUNTS_REFUSED:
            self.refused(document(mounts=["good.tar /good READ", line]), "mount")
        self.refused(document(mounts=["a.tar /a READ", "b.tar //a/ READWRITE"]), "two tarballs")

    def test_files_refused(self) -> None:
        """A file or secret is refused if it is malformed, or at a place that is not free."""
        for one, said in FILES_REFUSED:
            self.refused(document(files=[one]), said)
        for line, said in SECRETS_REFUSED:
            self.refused(document(secrets=[line]), said)
        self.refused(document(secrets=[1]), "secrets must be a string")
        twice = {"path": "/x/", "content": ""}
        self.refused(document(files=[twice], secrets=["db /x"]), "two files or secrets are at '/x'")

    def test_ports_refused(self) -> None:
        """A port is refused if it is malformed, published twice, or not on a private network."""
        for value in PORTS_REFUSED:
            self.refused(document(network="private", ports=["9:9", value]), "ports[1] must be")
        for one, other in (
            ("1:1", "1:2"),
            ("1:1", "0.0.0.0:1:1"),
            ("0.0.0.0:1:1", "9.9.9.9:1:1"),
            ("1:1/udp", "127.0.0.1:1:1/udp"),
            ("[::]:1:1", "[2001:db8::1]:1:1"),
        ):
            self.refused(document(network="private", ports=[one, other]), "ports publishes port")
        for network in ("host", "none", None):
            self.refused(document(network=network, ports=["1:1"]), '"network": "private"')

    def test_ports_of_ipv6(self) -> None:
        """They are written with brackets; addresses from which no answer gets back are refused."""
        (port,) = make_spec(network="private", ports=["[2001:db8::1]:80:8000"]).ports
        self.assertEqual(str(port), "[2001:db8::1]:80")
        self.assertEqual(port.mapping, "[2001:db8::1]:80->8000/tcp")
        self.assertEqual(port.written, "[2001:db8::1]:80:8000/tcp")
        self.assertIn("[2001:db8::1]:80:8000", port.forms)
        for address in ("::1", "fe80::1", "ff02::1", "::ffff:9.9.9.1"):
            ports = document(network="private", ports=[f"[{address}]:80:80"])
            self.refused(ports, "ports[0] can't publish anything at")

    def test_taken_ports(self) -> None:
        """On the host's network PORT is a port of the host; otherwise the published ones are."""
        port = Port("127.0.0.1", 80, 80, "tcp")
        self.assertEqual(make_spec(startup_env="PORT=80").taken_ports, (port,))
        self.assertEqual(make_spec().taken_ports, ())
        self.assertEqual(make_spec(startup_env="PORT=80", network="private").taken_ports, ())
        published = make_spec(network="private", ports=["81:80", "0.0.0.0:82:80/udp"])
        self.assertEqual([str(port) for port in published.taken_ports], ["81", "0.0.0.0:82/udp"])

    def test_limits_refused(self) -> None:
        """A bad or unknown limit is refused by name."""
        self.assertEqual(set(LIMITS_REFUSED), set(LIMITS))
        for limit, values in LIMITS_REFUSED.items():
            for value in values:
                limits = {"memory": "256M", limit: value}
                self.refused(document(limits=limits), f"limits.{limit} must be")
        error = self.refused(document(limits={"ram": 1}), "limits has no key 'ram'")
        self.assertIn("memory", error.chain[-1])
        self.refused(document(limits={"swap": 1}), "limits.swap")

    def test_health_refused(self) -> None:
        """A bad value of a check is refused by name, and so is what belongs to another form."""
        self.assertEqual(set(HEALTH_REFUSED), set(CHECK_KEYS))
        for key, values in HEALTH_REFUSED.items():
            form = {"http": "/"} if key in ("port", "status") else {"tcp": 1}
            for value in values:
                health = {key: value} if key in ("http", "command") else {**form, key: value}
                self.refused(document(health=health), f"health.{key} ")
        self.refused(document(health={"tcp": 1, "port": 1}), "health.port belongs to health.http")
        self.refused(document(health={"command": ["a"], "status": 200}), "health.status belongs")

    def test_port_asked(self) -> None:
        """A check asks the port that it names, or PORT, or the first published one of TCP."""
        for health, port in (
            ({"http": "/"}, 80),
            ({"http": "/", "port": 81}, 81),
            ({"tcp": True}, 80),
            ({"tcp": 81}, 81),
        ):
            self.assertEqual(make_spec(startup_env="PORT=80", health=health).port_asked, port)
        self.assertIsNone(make_spec(health={"command": ["a"]}).port_asked)
        for health in ({"http": "/"}, {"tcp": True}):
            spec = make_spec(network="private", ports=["53:53/udp", "8:9", "1:2"], health=health)
            self.assertEqual(spec.port_asked, 9)
            self.assertEqual(evolve(spec, ports=()).port_asked, 9)

    def test_expected_statuses(self) -> None:
        """Without a status, 200 to 399 are good; otherwise only that one is."""
        some = (199, 200, 204, 399, 400, 500)
        self.assertEqual([s for s in some if Health(http="/").expects(s)], [200, 204, 399])
        self.assertEqual([s for s in some if Health(http="/", status=500).expects(s)], [500])

    def test_defaults(self) -> None:
        """A missing key has the documented default."""
        plain = make_spec()
        self.assertEqual({key: getattr(plain, key) for key in DEFAULTS}, DEFAULTS)

    def test_required(self) -> None:
        """A required key that is missing is named."""
        for key in ("name", "major", "minor", "base_image"):
            self.refused(document(**{key: None}), f"the key {key!r} is missing")

    def test_unknown(self) -> None:
        """An unknown key is refused by name, and the known ones are listed."""
        error = self.refused(document(startup_scrpt="/x"), "a config has no key 'startup_scrpt'")
        self.assertIn("startup_script", error.chain[-1])
        self.refused(document(**{"\ud800\n" * 100: 1}), "'\\ud800\\n")

    def test_one_disk(self) -> None:
        """What is written is bounded on the disk or in memory, not both."""
        both = document(disk_size="16M", limits={"disk": "16M"})
        self.refused(both, "either disk_size or limits.disk")
        self.assertEqual(make_spec(disk_size="16M", limits={"files": 9}).limits.files, 9)

    def test_one_program(self) -> None:
        """A config has a script or a command, and not both; without either nothing is run."""
        both = document(startup_script="/run.sh", command=["redis-server"])
        self.refused(both, "either startup_script or command")
        self.assertEqual(make_spec(startup_script="/run.sh").program, "/run.sh")
        self.assertEqual(make_spec(command=["redis-server", "-v"]).program, "redis-server")
        self.assertEqual(make_spec().program, None)

    def test_long_paths(self) -> None:
        """A path that is too long for the kernel, counted in bytes, is refused."""
        for path in ("/" + "a" * 256, "/" + "é" * 128, "/a" * 513, "/éé" * 205):
            self.refused(document(startup_script=path), "startup_script")
            self.refused(document(mounts=[f"x.tar {path} READ"]), "the target in mounts")
        make_spec(startup_script="/" + "a" * 255 + "/" + "é" * 127 + "/a" * 256)


class Documents(Case):
    """The document as a whole."""

    def test_not_json(self) -> None:
        """Anything that is not JSON is refused, also extensions such as NaN."""
        numbers = b'{"a": ' + b"9" * 5000 + b"}"
        for text in (
            b"",
            b"{",
            b"web",
            b'{"name": NaN}',
            b"[Infinity]",
            b"{} {}",
            b"{'a': 1}",
            b'{"a": "\n"}',
            2 * b"\xef\xbb\xbf" + b"{}",
            numbers,
        ):
            self.refused(text, "JSON")

    def test_mark(self) -> None:
        """A byte order mark at the beginning, as Windows editors write it, is ignored."""
        self.assertEqual(from_json(b"\xef\xbb\xbf" + document()), make_spec())

    def test_not_an_object(self) -> None:
        """JSON that is not an object is refused."""
        for text in (b"[]", b"1", b"null", b'"name"', b"true"):
            self.refused(text, "not a JSON object")

    def test_not_utf8(self) -> None:
        """Bytes that are not UTF-8 are refused, and their place is named."""
        self.refused(b'{"name": "\xff"}', "not UTF-8: byte 10")
        self.refused(json.dumps({}).encode("utf-16"), "not UTF-8")
        self.refused(b'"\xed\xa0\x80"', "not UTF-8")

    def test_a_key_twice(self) -> None:
        """A key that is there twice is named, at any depth."""
        self.refused(document()[:-1] + b', "name": "web"}', "'name' is there twice")
        self.refused(b'{"a": [{"b": 1, "c": 2, "c": 3}]}', "'c' is there twice")

    def test_very_many_keys(self) -> None:
        """Finding a key that is there twice takes at most one comparison for each key."""
        compared = []

        class Key(str):
            """A key that counts how often it is compared with another."""

            __hash__ = str.__hash__

            def __eq__(self, other: Any) -> Any:
                compared.append(other)
                return str.__eq__(self, other)

        keys = [Key(number) for number in range(1000)] + [Key(999)]
        self.assertRaises(InvalidData, _no_key_twice, [(key, 0) for key in keys])
        self.assertLess(len(compared), len(keys))

    def test_nesting(self) -> None:
        """However deep the nesting is, the document is refused and no stack overflows."""
        limit = sys.getrecursionlimit()
        for depth in [1, 500, *range(limit - 90, limit + 10), 5000, 100_000]:
            for opening, closing in ((b"[", b"]"), (b'{"a":', b"}")):
                value = opening * depth + b"1" + closing * depth
                for key in (b"mounts", b"restart", b"max_restarts", b"limits", b"unheard-of"):
                    text = document()[:-1] + b',"%b":%b}' % (key, value)
                    if len(text) < LONGEST_DOCUMENT:
                        self.assertRaises(InvalidData, from_json, text)

    def test_a_mebibyte(self) -> None:
        """A document of a mebibyte is read, and one byte more is refused unread."""
        padded = document() + b" " * ((1 << 20) - len(document()))
        self.assertEqual(from_json(padded), make_spec())
        self.assertRaises(TooLarge, from_json, padded + b" ")
        self.assertRaises(TooLarge, read_object, b"{" * (1 << 21))

    def test_the_document_is_kept(self) -> None:
        """The spec keeps the document to the letter, and is compared without it."""
        text = json.dumps(json.loads(document(startup_env="A=é")), indent=3, ensure_ascii=False)
        kept = from_json(text.encode())
        self.assertEqual(kept.document, text)
        self.assertEqual(kept, make_spec(startup_env="A=é"))
        self.assertNotIn("document", kept.described())

    def test_described(self) -> None:
        """A spec describes itself as JSON, defaults included."""
        described = json.loads(json.dumps(make_spec(mounts=["x.tar /x READ"]).described()))
        self.assertEqual(
            described["mounts"], [{"tarball": "x.tar", "target": "/x", "writable": False}]
        )
        self.assertEqual(described["stop_timeout"], 2.0)


class Launches(Case):
    """The key of a config, as a launch sends it."""

    def test_taken(self) -> None:
        """Name, major and minor are returned in that order."""
        self.assertEqual(key_of({"minor": "01", "name": "web", "major": "1"}), ("web", "1", "01"))

    def test_refused(self) -> None:
        """A key missing, a key too many, a bad name and a wrong type are refused."""
        good = {"name": "web", "major": "1", "minor": "01"}
        for bad in (
            {},
            {"name": "web"},
            {**good, "more": 1},
            {**good, "name": "../x"},
            {**good, "major": 1},
            {**good, "minor": None},
        ):
            self.assertRaises(InvalidData, key_of, bad)


class Environment(Case):
    """startup_env, and what it makes of PORT."""

    def test_port(self) -> None:
        """PORT counts if it is the number of a port after ${NAME} is filled in."""
        for text, port in (
            ("PORT=80", 80),
            ("PORT=65535", 65535),
            ("PORT=0", None),
            ("PORT=65536", None),
            ("PORT=", None),
            ("PORT= 80\n", 80),
            ("PORT=8e3", None),
            ("PORT=-1", None),
            ("PORT=٣", None),
            ("PORT=080", 80),
            ("A=1", None),
            ("", None),
            ("PORT=80;PORT=81", 81),
            ("PORT=80;PORT=", None),
            ("PORT=${PORT}", None),
            ("A=8;PORT=${A}${A}0", 880),
            ("PORT=8;PORT=${PORT}1", 81),
            ("PORT=8${HOME}", 8),
            ({"PORT": "80"}, 80),
            ({"PORT": 80}, 80),
            (["PORT=80"], 80),
            (["PORT=8${A}"], None),
        ):
            self.assertEqual(make_spec(startup_env=text).port, port, text)

    def test_a_semicolon(self) -> None:
        """The error says what a semicolon does in a string, and what to write instead."""
        error = self.refused(document(startup_env='A="host=db;port"'), "a part is 'port\"'")
        self.assertIn("as an object", error.chain[-1])

    def test_described(self) -> None:
        """Values are shown as they were written."""
        for written in ("A=x${B}${C}", {"A": "x${B}${C}"}):
            described = make_spec(startup_env=written).described()
            self.assertEqual(described["startup_env"], [("A", "x${B}${C}")])

    def test_only_names_are_filled_in(self) -> None:
        """What looks like other shell syntax stays as it is, and what is filled in is not filled
        in again."""
        for value in ("$A", "$(A)", "`A`", "${A", "${A:-x}", "${}", "${ A }", "\\${A", "~", "*"):
            spec = make_spec(startup_env=f"B={value}")
            self.assertEqual(fill_in(spec.startup_env, {"A": "a"})["B"], value)
        for value, wanted in (("${A}", "${B}"), ("${${A}}", "${${B}}")):
            spec = make_spec(startup_env=f"B={value}")
            self.assertEqual(fill_in(spec.startup_env, {"A": "${B}"})["B"], wanted)

    def test_growth(self) -> None:
        """Text that doubles itself is refused before it is made."""
        doubling = ";".join(["A=12345678", *["A=${A}${A}"] * 60])
        self.refused(document(startup_env=doubling), "startup_env, filled in, is longer than")

    def test_very_many_variables(self) -> None:
        """A text that is too long is not even split, however short each variable is."""
        for text in (";", "A=;", "1;"):
            self.refused(document(startup_env=text * 33_000), "startup_env is longer than 32000")
        many = "A=" + "x" * 16_000 + ";B=${A};C=${A}"
        self.refused(document(startup_env=many), "startup_env")
        make_spec(startup_env="A=" + "x" * 16_000 + ";B=${A}")

    def test_literal(self) -> None:
        """Only the text between the references goes through a function."""
        pairs = [("A", ("x", "B", "y")), ("C", ("", "A", ""))]
        filled = fill_in(pairs, {"B": "b"}, str.upper)
        self.assertEqual(filled, {"A": "XbY", "B": "b", "C": "XbY"})


class Properties(Case):
    """What holds for any input."""

    @given(st.binary() | st.text().map(str.encode))
    def test_any_bytes(self, text: bytes) -> None:
        """Whatever bytes come, the answer is a spec or InvalidData."""
        self.check(text)

    @given(st.dictionaries(st.sampled_from(list(KEYS)) | st.text(), json_values), st.booleans())
    def test_any_json(self, values: Any, escaped: Any) -> None:
        """Whatever JSON comes, the answer is a spec or InvalidData."""
        text = json.dumps({**json.loads(document()), **values}, ensure_ascii=escaped)
        self.check(text.encode("utf-8", "surrogatepass"))

    @given(st.sampled_from(list(KEYS)), st.data())
    def test_near_misses(self, key: Any, data: Any) -> None:
        """Values made of the right characters are taken or raise InvalidData."""
        text = data.draw(st.text("aA0 ./;=-_${}\n\x00é\ud800MREAD"))
        lines = st.lists(st.text("ax ./READWRITE"))
        self.check(document(**{key: text}))
        self.check(document(mounts=data.draw(lines)))

    def check(self, text: bytes) -> None:
        try:
            accepted = from_json(text)
        except InvalidData as error:
            self.assertTrue(str(error).isprintable())
            return
        self.assertEqual(from_json(accepted.document.encode()), accepted)
        json.dumps(accepted.described(), allow_nan=False)
        self.assertIn(type(accepted.port), (int, type(None)))

    @given(
        *[
            st.from_regex(KEYS_PATTERN, fullmatch=True)
            for KEYS_PATTERN in (spec.NAME, spec.VERSION, spec.VERSION)
        ]
    )
    @settings(max_examples=200)
    def test_file_names(self, name: str, major: Any, minor: Any) -> None:
        """NAME-MAJOR-MINOR.cfg can be read in one way only, is short, and names no folder."""
        file_name = make_spec(name=name, major=major, minor=minor).file_name
        self.assertEqual(tuple(file_name.removesuffix(".cfg").rsplit("-", 2)), (name, major, minor))
        self.assertNotIn("/", file_name)
        self.assertNotEqual(file_name[0], ".")
        self.assertLessEqual(len(file_name), 200)

    @given(json_values)
    def test_shown(self, value: Any) -> None:
        """Any value can be shown, in a short printable line."""
        self.assertLessEqual(len(shown(value)), 60)
        self.assertTrue(shown(value).isprintable())
