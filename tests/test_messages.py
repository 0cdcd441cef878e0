"""Every error that a person can meet: what was done, and the exact text that answers it.

This is one table, in parts, to be read as a whole. The texts are what scripts and habits hold on
to: change one only on purpose. A new error is a new row:

- of a config: in CONFIGS, what is changed in a small valid one, and the text;
- of a request: in REQUESTS, the request, and the status with the text;
- of the CLI: in COMMANDS, the words that are typed, and the text;
- of the manager's options: in OPTIONS;
- of a stack: in STACKS, what is changed in a small valid one; in REVISIONS, if its config matters;
- of a launch, or of anything else that one call in a small test can provoke: in CALLS;
- of an image's documents or its name: in `tests/images/`, with what is read;
- of what takes a real kernel, or a whole machine: in ELSEWHERE, with the test that provokes it.

`test_nothing_is_left_out` reads the sources, and names every text that is in no row.

How a text is written: what happened, to what, then (after an arrow, or a colon) what to do. Plain
words, and short sentences; "only" and not "alone", "if" and not "where".
"""

import ast
import errno
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast
from unittest import mock
from urllib.parse import unquote

from treq.client import HTTPClient
from treq.testing import StubTreq
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionRefusedError, DNSLookupError
from twisted.python.failure import Failure
from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import ResponseFailed

from tests.api.test_hostile_http import HostileCase
from tests.api.test_streams import HEADERS
from tests.api.test_verbs import all_errors
from tests.cli.session import Broken, Session
from tests.container.test_reference import REFUSED as OF_REFERENCES
from tests.fakes import ManagerTestCase
from tests.images.test_layout import REFUSED as OF_ARCHIVES
from tests.images.test_oci import REFUSED as OF_IMAGES
from tests.images.test_registry import REFUSED as OF_REGISTRIES
from tests.support import document
from txcontain.api.access import Caller, read_tokens
from txcontain.api.server import LONGEST_REQUEST
from txcontain.cli import connect, main
from txcontain.cli.client import QUICK, Client
from txcontain.cli.errors import CliError
from txcontain.container.document import LONGEST_DOCUMENT, read_object
from txcontain.container.facts import FIRST_ID, IDS, MOST_RANGES
from txcontain.container.launch_request import read_launch_request
from txcontain.container.spec import KEYS, Port, from_json
from txcontain.engine import files
from txcontain.engine.manager import Manager
from txcontain.engine.names import Known, match
from txcontain.errors import Error
from txcontain.host.id_ranges import free_range
from txcontain.host.os_errors import CAUSES
from txcontain.runtime import diagnose
from txcontain.runtime.conversation import StepFailed
from txcontain.runtime.exits import Exit
from txcontain.services.document import read_stack
from txcontain.services.revision import make_revision
from txcontain.tap import Options

PROJECT = Path(__file__).resolve().parents[1]
LONG = "x" * 60

# What is changed in a valid config (or the whole document), and why it is refused.
CONFIGS = (
    (b"", "the document is not JSON: Expecting value: line 1 column 1 (char 0)"),
    (
        b'{"name" "a"}',
        "the document is not JSON: Expecting ':' delimiter: line 1 column 9 (char 8)",
    ),
    (b'{"name": NaN}', "NaN is not JSON"),
    (b'{"name": "\xff"}', "the document is not UTF-8: byte 10 can't be read"),
    (b"[" * 100_000, "the document is nested too deep"),
    (b"[]", "the document is not a JSON object"),
    (b'{"name": "a", "name": "b"}', "the key 'name' is there twice"),
    (b" " * (LONGEST_DOCUMENT + 1), "the document is longer than 1048576 bytes"),
    ({"name": None}, "the key 'name' is missing"),
    ({"colour": "red"}, "a config has no key 'colour' → the keys are " + ", ".join(KEYS)),
    ({"name": 1}, "name must be a string, not 1"),
    ({"name": ["a"]}, "name must be a string, not a list of 1"),
    ({"name": "a/b"}, "name must be up to 50 letters, digits, '.', '_' and '-', not 'a/b'"),
    ({"name": "a\n"}, "name holds a character that can't be printed: 'a\\n'"),
    (
        {"name": LONG},
        "name must be up to 50 letters, digits, '.', '_' and '-', not "
        "'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx...",
    ),
    ({"major": "1-2"}, "major must be up to 32 letters, digits, '.' and '_', not '1-2'"),
    ({"minor": ""}, "minor must be up to 32 letters, digits, '.' and '_', not ''"),
    (
        {"base_image": "../etc/passwd"},
        "base_image must be the plain name of a file, not '../etc/passwd'",
    ),
    (
        {"base_image": "registry:port/app"},
        "base_image is no image: 'registry:port/app' names a registry that can't be one → an image "
        "is [REGISTRY/]REPOSITORY[:TAG][@sha256:DIGEST], such as registry:5000/app:1.4",
    ),
    ({"mounts": "a.tar /a READ"}, "mounts must be a list of up to 64 strings, not 'a.tar /a READ'"),
    (
        {"mounts": ["a.tar /a"]},
        "a mount is 'TARBALL /absolute/target READ' or 'TARBALL /absolute/target READWRITE', "
        "not 'a.tar /a'",
    ),
    (
        {"mounts": ["a.tar /a WRITE"]},
        "a mount is 'TARBALL /absolute/target READ' or 'TARBALL /absolute/target READWRITE', "
        "not 'a.tar /a WRITE'",
    ),
    (
        {"mounts": ["b/a.tar /a READ"]},
        "the tarball in mounts must be the plain name of a file, not 'b/a.tar'",
    ),
    (
        {"mounts": ["a.tar a READ"]},
        "the target in mounts must be an absolute path without '..', not 'a'",
    ),
    (
        {"mounts": ["a.tar /a/../b READ"]},
        "the target in mounts must be an absolute path without '..', not '/a/../b'",
    ),
    (
        {"mounts": ["a.tar / READ"]},
        "nothing can be mounted at '/': the container has its own there",
    ),
    (
        {"mounts": ["a.tar /proc/x READ"]},
        "nothing can be mounted at '/proc/x': the container has its own there",
    ),
    (
        {"mounts": ["a.tar /a READ", "b.tar /a READ"]},
        "mounts has two tarballs at '/a': one would hide the other",
    ),
    (
        {"mounts": ["a.tar /a READ"], "volumes": ["v /a"]},
        "volumes has a second thing at '/a': one would hide the other",
    ),
    (
        {"volumes": "v /a"},
        "volumes must be a list of up to 64 strings, not 'v /a'",
    ),
    (
        {"volumes": ["v /a WRITE"]},
        "one of volumes is 'NAME /absolute/target' or '/folder/of/the/host /absolute/target', "
        "and then READ, READWRITE or nothing, not 'v /a WRITE'",
    ),
    (
        {"volumes": ["a/b /a"]},
        "a name in volumes must be up to 50 letters, digits, '.', '_' and '-', not 'a/b'",
    ),
    (
        {"volumes": ["/srv/../x /a"]},
        "a folder in volumes must be an absolute path without '..', not '/srv/../x'",
    ),
    (
        {"stop_signal": "STOPP"},
        "stop_signal must be a signal's name or number, as 'TERM' or 15, not 'STOPP'",
    ),
    (
        {"mounts": ["a.tar /" + "x" * 256 + " READ"]},
        "the target in mounts has more than 1024 bytes, or a part with more than 255",
    ),
    (
        {"startup_script": "run.sh"},
        "startup_script must be an absolute path without '..', not 'run.sh'",
    ),
    (
        {"command": "redis-server -v"},
        'command must be a list such as ["redis-server", "--port", "7000"] of up to 1000 '
        "strings, not 'redis-server -v'",
    ),
    ({"command": ["a", 1]}, "a word of command must be a string, not 1"),
    ({"command": ["a\0"]}, "a word of command has a NUL or a lone surrogate: 'a\\x00'"),
    (
        {"command": [""]},
        "command begins with an empty string: the first one names a program",
    ),
    ({"command": ["a" * 32_001]}, "command is longer than 32000 characters"),
    (
        {"command": ["a"], "startup_script": "/a"},
        "a config has either startup_script or command: only one program can be PID 1",
    ),
    (
        {"disk_size": "16M", "limits": {"disk": "16M"}},
        "a config has either disk_size or limits.disk: on the disk, or in memory",
    ),
    ({"files": "/x"}, "files must be a list of up to 64 objects, not '/x'"),
    ({"files": ["/x"]}, 'files has objects such as {"path": "/x", "content": ""}, not \'/x\''),
    ({"files": [{"path": "/x"}]}, "each of files has a path, and either content or from"),
    (
        {"files": [{"path": "/x", "content": "", "text": ""}]},
        "a file has no key 'text' → the keys are path, content, from, mode, owner",
    ),
    (
        {"files": [{"path": "/proc/x", "content": ""}]},
        "no file can be put at '/proc/x': the container has its own there",
    ),
    ({"files": [{"path": "/x", "content": 1}]}, "content in files must be a text, not 1"),
    (
        {"files": [{"path": "/x", "content": "", "mode": 420}]},
        "mode in files must be a string of octal digits such as '0644', not 420",
    ),
    (
        {"files": [{"path": "/x", "content": "x" * 262_145}]},
        "files has contents of more than 262144 bytes together",
    ),
    (
        {"secrets": ["db /x", "key /x"]},
        "two files or secrets are at '/x': one would hide the other",
    ),
    (
        {"secrets": ["db"]},
        "a secret is 'NAME /absolute/path', 'NAME /absolute/path 0400' or the same with an owner, "
        "not 'db'",
    ),
    ({"workdir": "data"}, "workdir must be an absolute path without '..', not 'data'"),
    (
        {"startup_owner": "a b"},
        "startup_owner must be USER or USER:GROUP, each a name or a number up to 4294967294, not "
        "'a b'",
    ),
    (
        {"startup_env": "A=host=db;port"},
        "startup_env must be 'NAME=VALUE;NAME=VALUE', and a part is 'port' → ';' ends a value: to "
        "have one in it, write startup_env as an object",
    ),
    ({"startup_env": 1}, "startup_env must be a string, an object or a list, not 1"),
    ({"startup_env": ["A=1"] * 1001}, "startup_env has more than 1000 variables"),
    ({"startup_env": ["PORT"]}, "a variable in a list of startup_env is 'NAME=VALUE', not 'PORT'"),
    (
        {"startup_env": {"A B": "1"}},
        "a name in startup_env must be letters, digits and '_', not 'A B'",
    ),
    (
        {"startup_env": {"A": True}},
        "a value in startup_env must be a string or a whole number, not True",
    ),
    (
        {"startup_env": {"A": "\0"}},
        "a value in startup_env has a NUL or a lone surrogate: '\\x00'",
    ),
    ({"startup_env": "A=" + "x" * 32_001}, "startup_env is longer than 32000 characters"),
    (
        {"restart": "sometimes"},
        "restart must be one of no, on-failure, always, unless-stopped, not 'sometimes'",
    ),
    ({"max_restarts": -1}, "max_restarts must be a number from 0 to 1000000, not -1"),
    ({"stop_timeout": "2"}, "stop_timeout must be a number from 0 to 3600, not '2'"),
    ({"log_max_size": "1K"}, "log_max_size must be 4096 bytes or more, such as '10M', not '1K'"),
    (
        {"log_max_size": "10MB"},
        "log_max_size must be 4096 bytes or more, such as '10M', not '10MB'",
    ),
    ({"log_max_files": 0}, "log_max_files must be a number from 1 to 100, not 0"),
    ({"limits": "256M"}, 'limits must be an object such as {"memory": "256M"}, not \'256M\''),
    (
        {"limits": {"ram": "1G"}},
        "limits has no key 'ram' → the keys are memory, swap, cpus, pids, io_weight, files, disk",
    ),
    (
        {"limits": {"swap": "1G"}},
        "limits.swap is what may be swapped beside limits.memory: set limits.memory too",
    ),
    (
        {"limits": {"memory": "1K"}},
        "limits.memory must be 1048576 bytes or more, such as '10M', not '1K'",
    ),
    ({"limits": {"cpus": 0}}, "limits.cpus must be a number from 0.01 to 1024, not 0"),
    ({"writable_root": "yes"}, "writable_root must be true or false, not 'yes'"),
    ({"network": "bridge"}, "network must be one of host, none, private, not 'bridge'"),
    ({"ports": ["80:80"]}, 'ports can only be published with "network": "private"'),
    (
        {"per_connection": True},
        "per_connection needs a startup_script or a command: it is what each is given to",
    ),
    (
        {"per_connection": True, "command": ["a"], "restart": "always"},
        "per_connection makes no sense with restart: the connection is over by then",
    ),
    (
        {"per_connection": True, "command": ["a"], "tty": True},
        "per_connection makes no sense with tty: the connection is what it reads",
    ),
    (
        {"per_connection": True, "command": ["a"], "health": {"command": ["b"]}},
        "per_connection makes no sense with health: the program need not answer a check",
    ),
    (
        {"per_connection": True, "command": ["a"], "startup_env": "PORT=80"},
        "per_connection makes no sense with a PORT: the program need not listen",
    ),
    (
        {"ports": {"80": 80}, "network": "private"},
        "ports must be a list of up to 64 strings, not an object of 1",
    ),
    (
        {"ports": ["80"], "network": "private"},
        "ports[0] must be a string HOST:CONTAINER, such as '8000:80', not '80' → "
        "it may begin with an address of the host, as in '0.0.0.0:8000:80' or '[::]:8000:80', and "
        "end with '/tcp' or '/udp'",
    ),
    (
        {"ports": ["999.0.0.1:80:80"], "network": "private"},
        "ports[0] must be a string HOST:CONTAINER, such as '8000:80', not '999.0.0.1:80:80' → "
        "it may begin with an address of the host, as in '0.0.0.0:8000:80' or '[::]:8000:80', and "
        "end with '/tcp' or '/udp'",
    ),
    (
        {"ports": ["[::1]:80:80"], "network": "private"},
        "ports[0] can't publish anything at [::1]: the kernel leads nothing from there to a "
        "container → publish it at 127.0.0.1, which programs try too if they look up localhost",
    ),
    (
        {"ports": ["[fe80::1]:80:80"], "network": "private"},
        "ports[0] can't publish anything at [fe80::1]: give an address of the host's of its own",
    ),
    ({"ports": ["80:1", "80:2"], "network": "private"}, "ports publishes port 80 twice"),
    ({"health": "/x"}, 'health must be an object such as {"http": "/health"}, not \'/x\''),
    (
        {"health": {"url": "/"}},
        "health has no key 'url' → the keys are http, port, status, tcp, command, interval, "
        "timeout, start_period, start_interval, retries, on_failure",
    ),
    ({"health": {"interval": 1}}, "health has exactly one of http, tcp, command"),
    (
        {"health": {"http": "80/x"}},
        "health.http must be a path such as '/health' (its port is the key 'port'), not '80/x'",
    ),
    (
        {"health": {"tcp": False}},
        "health.tcp must be true (for PORT) or a port up to 65535, not False",
    ),
    (
        {"health": {"tcp": True, "port": 80}},
        "health.port belongs to health.http → write tcp: PORT",
    ),
    (
        {"health": {"tcp": True}},
        "health does not say which port to ask → give it a port, set PORT in startup_env, or "
        "publish a port",
    ),
)

NONE = '{"name": "nobody", "major": "1", "minor": "01"}'
WHOLE = document().decode()
# A launch as POST /instances takes it, and why it is refused.
LAUNCHES = (
    (
        '{"name": "web"}',
        "a launch has no key 'name' → the keys are config, major, minor, instance, remove, labels",
    ),
    ("{}", "the key 'config' is missing"),
    ('{"config": 1}', "config must be the name of a config, or a whole one, not 1"),
    ('{"config": "a b"}', "config must be up to 50 letters, digits, '.', '_' and '-', not 'a b'"),
    (
        f'{{"config": {WHOLE}, "major": "1"}}',
        "a whole config has its own major and minor: leave out those of the launch",
    ),
    ('{"config": "web", "minor": "1"}', "a launch with a minor has a major too"),
    (
        '{"config": "web", "instance": "-a"}',
        "instance must be up to 63 letters, digits, '.', '_' and '-', with a letter, digit or '_' "
        "at both ends, not '-a'",
    ),
    (
        '{"config": "web", "instance": "localhost"}',
        "no instance can have the name localhost: it stands for the container itself",
    ),
    ('{"config": "web", "remove": "yes"}', "remove must be true or false, not 'yes'"),
    (
        '{"config": "web", "labels": 1}',
        "labels must be an object of up to 64 strings, not 1",
    ),
    (
        '{"config": "web", "labels": {"-": ""}}',
        "a label's name must be up to 63 letters, digits, '.', '_', '/' and '-', with a letter or "
        "digit at both ends, not '-'",
    ),
    (
        '{"config": "web", "labels": {"a": "' + "b" * 256 + '"}}',
        "the label a is longer than 255 characters",
    ),
    (
        '{"config": "web", "labels": {"stack": "shop"}}',
        "the label stack is only for instances of services → choose another name",
    ),
)
# What a stack of one service "a", of config web-1-01, is refused for, by what it has beside that.
STACKS: tuple[tuple[Any, ...], ...] = (
    (
        {},
        {"placement": ["ssd"]},
        'services.a.placement must be an object such as {"node.labels.disk": "ssd"}, not a list '
        "of 1",
    ),
    (
        {},
        {"placement": {"disk": "ssd"}},
        "services.a.placement: nodes have node.labels.NAME, node.role and node.hostname, and no "
        "'disk'",
    ),
    (
        {},
        {"placement": {"node.labels.disk": "a b"}},
        "services.a.placement.node.labels.disk must be letters, digits, '.', '_' and '-', not "
        "'a b'",
    ),
    (
        {},
        {"spread": "disk"},
        "services.a.spread must be a label of nodes, such as node.labels.zone, not 'disk'",
    ),
    (
        {"stack": "a b"},
        {},
        "stack: the name of a stack must be up to 24 letters, digits, '_' and "
        "'-', with a letter or digit at both ends, not 'a b'",
    ),
    ({"stack": None}, {}, "the key 'stack' is missing"),
    ({"version": "3"}, {}, "a stack has no key 'version' → the keys are stack, services"),
    ({"services": []}, {}, "services must be an object of 1 to 1000 services, not a list of 0"),
    (
        {"services": {"-": {}}},
        {},
        "services: the name of a service must be up to 32 letters, "
        "digits, '_' and '-', with a letter or digit at both ends, not '-'",
    ),
    (
        {"services": {"a": "web"}},
        {},
        'services.a must be an object such as {"config": "web-1-01"}, not \'web\'',
    ),
    ({"services": {"a": {}}}, {}, "services.a.config is missing"),
    (
        {},
        {"image": 1},
        "services.a has no key 'image' → the keys are config, replicas, after, "
        "ports, health, update, drain, on_demand, per_connection, placement, spread, run, "
        "schedule, catch_up",
    ),
    ({}, {"config": "web"}, "services.a.config must name a config, as NAME-MAJOR-MINOR, not 'web'"),
    ({}, {"replicas": 101}, "services.a.replicas must be a number from 0 to 100, not 101"),
    ({}, {"replicas": "3"}, "services.a.replicas must be a number from 0 to 100, not '3'"),
    (
        {},
        {"after": ["b"]},
        'services.a.after must be an object such as {"db": "healthy"}, not a list of 1',
    ),
    (
        {},
        {"after": {"b": "up"}},
        "services.a.after.b must be one of started, healthy, completed_successfully, not 'up'",
    ),
    ({}, {"after": {"b": "started"}}, "services.a.after.b: there is no service 'b' in this stack"),
    ({}, {"after": {"a": "started"}}, "services wait for one another: a → a"),
    (
        {},
        {"ports": ["80:1", 80]},
        "services.a.ports[1] must be a string HOST:CONTAINER, such as '8000:80', not 80 → "
        "it may begin with an address of the host, as in '0.0.0.0:8000:80' or '[::]:8000:80', and "
        "end with '/tcp' or '/udp'",
    ),
    ({}, {"ports": ["80:1", "80:2"]}, "services.a.ports publishes port 80 twice"),
    (
        {},
        {"health": 1},
        'services.a.health must be an object such as {"http": "/health"}, not 1',
    ),
    (
        {},
        {"update": 1},
        'services.a.update must be an object such as {"order": "start-first"}, not 1',
    ),
    (
        {},
        {"update": {"order": "both"}},
        "services.a.update.order must be one of stop-first, start-first, not 'both'",
    ),
    (
        {},
        {"update": {"max_failure_ratio": 2}},
        "services.a.update.max_failure_ratio must be a number from 0 to 1, not 2",
    ),
    (
        {},
        {"update": {"a": 2}},
        "services.a.update has no key 'a' → the keys are order, "
        "parallelism, delay, monitor, failure_action, max_failure_ratio, healthy_deadline",
    ),
    ({}, {"drain": -1}, "services.a.drain must be a number from 0 to 86400, not -1"),
    (
        {},
        {"on_demand": True},
        'services.a.on_demand must be an object such as {"idle": 60}, not True',
    ),
    (
        {},
        {"on_demand": {"idle": 0}},
        "services.a.on_demand.idle must be a number from 1 to 86400, not 0",
    ),
    ({}, {"on_demand": {"a": 1}}, "services.a.on_demand has no key 'a' → the keys are idle"),
    (
        {},
        {"per_connection": True, "replicas": 2},
        "services.a.replicas makes no sense with per_connection: each connection has its own",
    ),
    (
        {"b": {"on_demand": {}}},
        {"after": {"b": "started"}},
        "services.a.after.b: b only runs while someone is connected to it",
    ),
    ({}, {"run": "twice"}, "services.a.run must be one of always, once, not 'twice'"),
    (
        {},
        {"run": "once", "replicas": 2},
        'services.a.replicas makes no sense with "run": "once": it is to end by itself',
    ),
    (
        {},
        {"schedule": "@daily", "ports": []},
        "services.a.ports makes no sense with a schedule: it is to end by itself",
    ),
    (
        {},
        {"schedule": "@daily", "run": "once"},
        'services.a.schedule makes no sense with "run": "once": choose one of them',
    ),
    ({}, {"catch_up": True}, "services.a.catch_up is only for services with a schedule"),
    (
        {},
        {"run": "once", "catch_up": True},
        "services.a.catch_up is only for services with a schedule",
    ),
    (
        {},
        {"schedule": "daily"},
        "services.a.schedule must be the five fields of cron, minute hour "
        "day-of-month month day-of-week, as in '15 3 * * *', not 'daily'",
    ),
    (
        {},
        {"schedule": "60 * * * *"},
        "the minute of services.a.schedule must be '*', a number from "
        "0 to 59, a range as 1-5, or a list of these, each with a step as '*/10' or without, not "
        "'60'",
    ),
    (
        {},
        {"schedule": "0 0 30 2 *"},
        "services.a.schedule '0 0 30 2 *' never comes: no such month has such a day",
    ),
    (
        {"b": {"schedule": "@daily"}},
        {"after": {"b": "started"}},
        "services.a.after.b: b has a schedule, and only runs at its times",
    ),
    (
        {"b": {}},
        {"after": {"b": "completed_successfully"}},
        'services.a.after.b: b never completes, as it has no "run": "once"',
    ),
    (
        {"b": {"run": "once"}},
        {"after": {"b": "healthy"}},
        'services.a.after.b: b is to end by itself: write "completed_successfully"',
    ),
    (
        {"b": {"after": {"a": "started"}}},
        {"after": {"b": "started"}},
        "services wait for one another: a → b → a",
    ),
    (
        {"b": {"ports": ["80:1"]}},
        {"ports": ["0.0.0.0:80:2"]},
        "services.b.ports: services.a publishes port 80 too",
    ),
    ({"A": {}}, {}, "services.A and services.a would be found by one name: DNS ignores case"),
)
# What a service "a" is refused for together with its config.
REVISIONS: tuple[tuple[Any, ...], ...] = (
    (
        {"run": "once"},
        {"restart": "always"},
        'services.a.config: it has "restart": "always", and so would never complete',
    ),
    (
        {"on_demand": {"idle": 60}},
        {},
        "services.a.on_demand: it publishes no port, and so no connection comes",
    ),
    (
        {"per_connection": True, "ports": ["80:1", "53:1/udp"]},
        {"command": ["cat"]},
        "services.a.ports: nothing waits for datagrams: with per_connection, only TCP is published",
    ),
    (
        {"ports": ["80:1"]},
        {"network": "host"},
        'services.a.ports: its config has "network": '
        '"host" → a service\'s ports lead to a private network: leave "network" out of the config',
    ),
    (
        {"replicas": 2},
        {"network": "host", "startup_env": "PORT=80"},
        "services.a.replicas: each "
        'of them would take port 80 of the host → leave "network" out of the config, and publish '
        "the service's ports",
    ),
    (
        {"update": {"order": "start-first"}},
        {"startup_env": "PORT=80"},
        "services.a.update.order: "
        "two of them can't have port 80 of the host → choose stop-first, or publish the service's "
        "ports",
    ),
    (
        {},
        {"shm_size": "x"},
        "services.a: its config does not fit → shm_size must be 4096 bytes or "
        "more, such as '10M', not 'x'",
    ),
)
# A request, with what else is in it, and its answer.
REQUESTS: tuple[tuple[Any, ...], ...] = (
    (
        "GET /configs/web-9-9/export",
        {},
        "409 Bad Request: the query says no target → it takes to=oci or docker-archive or compose "
        "or kubernetes or systemd",
    ),
    (
        "GET /configs/web-9-9/export?to=helm",
        {},
        "409 Bad Request: to must be oci or docker-archive or compose or kubernetes or systemd, "
        "not 'helm'",
    ),
    (
        "GET /instances/web-9/files",
        {},
        "409 Bad Request: the query has no path → say which, as in ?path=/etc/hosts",
    ),
    (
        "GET /instances/web-9/files?path=etc",
        {},
        "409 Bad Request: path must be an absolute path of up to 4096 bytes, not 'etc'",
    ),
    (
        "POST /instances/web-9/commit",
        {"body": "{}"},
        "409 Bad Request: the key 'mountable' is missing, or 'image'",
    ),
    (
        "POST /instances/web-9/commit",
        {"body": '{"image": "app:2", "pause": true}'},
        "409 Bad Request: an image takes no other key: it has all of an instance, which stands "
        "still",
    ),
    (
        "GET /configs/web-9-9/export?to=oci&image=app@sha256:%s" % ("0" * 64),
        {},
        "409 Bad Request: an image is exported under a tag: its digest is that of what it is",
    ),
    (
        "POST /configs/web-9-9/push",
        {"body": '{"image": "app@sha256:%s"}' % ("0" * 64)},
        "409 Bad Request: an image is pushed under a tag: its digest is that of what it is",
    ),
    (
        "POST /instances/web-9/commit",
        {"body": '{"mountable": 1}'},
        "409 Bad Request: mountable must be a string, not 1",
    ),
    (
        "POST /instances/web-9/commit",
        {"body": '{"name": 1}'},
        "409 Bad Request: this request has no key 'name' → the keys are mountable, mount, pause, "
        "image",
    ),
    (
        "POST /config",
        {"body": "{"},
        "409 Bad Request: the document is not JSON: Expecting property name enclosed in "
        "double quotes: line 1 column 2 (char 1)",
    ),
    (
        "POST /config",
        {"body": " " * (LONGEST_DOCUMENT + 1)},
        "409 Bad Request: the body is longer than 1048576 bytes",
    ),
    (
        "POST /config",
        {"body": document().decode(), "twice": True},
        "409 Conflict: web-1-01.cfg exists already → change its minor version, and upload it again",
    ),
    (
        "POST /launch",
        {"body": NONE},
        "404 Not Found: there is no config nobody-1-01.cfg → upload it first",
    ),
    (
        "POST /launch",
        {"body": '{"name": "web"}'},
        "409 Bad Request: the key 'major' is missing",
    ),
    (
        "POST /launch",
        {"body": '{"config": "web"}'},
        "409 Bad Request: a launch has no key 'config' → the keys are name, major, minor",
    ),
    ("DELETE /destroy/web-9", {}, "404 Not Found: there is no instance web-9"),
    (
        "GET /instances/web-9",
        {},
        "404 Not Found: there is no instance web-9 → `txcontain ps -a` shows those there are",
    ),
    (
        "GET /instances/config:web",
        {},
        "404 Not Found: there is no instance config:web → `txcontain ps -a` shows those there are",
    ),
    (
        "POST /instances/web-9/exec",
        {"body": '{"command": ["ls"], "stdin": 1}'},
        "409 Bad Request: stdin must be a string, not 1",
    ),
    (
        "POST /instances/web-9/exec",
        {"body": '{"command": ["ls"], "timeout": 0}'},
        "409 Bad Request: timeout must be a number of seconds up to 3600, not 0",
    ),
    (
        "POST /instances/web-9/exec",
        {"body": '{"stdin": ""}'},
        "409 Bad Request: the key 'command' is missing",
    ),
    (
        "POST /instances/web-9/exec",
        {"body": '{"args": 1}'},
        "409 Bad Request: an exec has no key 'args' → the keys are command, user, env, workdir, "
        "stdin, timeout",
    ),
    (
        "GET /instances/web-9/exec/explain?command=%ff",
        {},
        "409 Bad Request: command is not UTF-8: '\\ufffd'",
    ),
    (
        "GET /unpacking/explain?tarball=none.tar",
        {},
        "409 Conflict: there is no tarball none.tar → `txcontain df -v` shows those there are",
    ),
    (
        "GET /instances/web-9/compare",
        {},
        "409 Bad Request: the query names nothing to compare it with: ?to=INSTANCE or ?to=PID",
    ),
    (
        "POST /instances/web-9/stop",
        {"body": '{"seconds": 1}'},
        "409 Bad Request: this request has no key 'seconds' → the keys are timeout",
    ),
    (
        "POST /instances/web-9/start",
        {"body": '{"timeout": 1}'},
        "409 Bad Request: this request has no key 'timeout' → it takes none",
    ),
    (
        "POST /instances/web-9/kill",
        {"body": '{"signal": "STOPP"}'},
        "409 Bad Request: signal must be a signal's name or number, as 'TERM' or 15, not 'STOPP'",
    ),
    (
        "POST /prune",
        {"body": '{"dryrun": true}'},
        "409 Bad Request: this request has no key 'dryrun' → the keys are dry_run, volumes",
    ),
    (
        "POST /prune",
        {"body": '{"dry_run": "yes"}'},
        "409 Bad Request: dry_run must be true or false, not 'yes'",
    ),
    (
        "GET /instances/web-9/exec?tty=1&rows=0",
        {"host": "Host: localhost\r\n" + "\r\n".join(HEADERS[1:])},
        "409 Bad Request: a terminal has 1 to 65535 rows and columns, not 0",
    ),
    (
        "GET /instances/web-9/exec?tty=1&columns=70000",
        {"host": "Host: localhost\r\n" + "\r\n".join(HEADERS[1:])},
        "409 Bad Request: a terminal has 1 to 65535 rows and columns, not 70000",
    ),
    (
        "GET /instances/web-9/exec",
        {},
        "409 Bad Request: this is a WebSocket (RFC 6455) with the subprotocol v5.channel.k8s.io → "
        "the request does not ask for that: Missing header, 'Connection: Upgrade'",
    ),
    ("GET /nothing", {}, "404 Not Found: there is no such path; see API.md"),
    ("PUT /list", {}, "405 Method Not Allowed"),
    (
        "GET /events?since=1234567890123456",
        {},
        "409 Bad Request: since must be a whole number from 0 to 999999999999999, not "
        "'1234567890123456'",
    ),
    (
        "GET /events?follow=yes",
        {},
        "409 Bad Request: follow must be 1, true, 0 or false, not 'yes'",
    ),
    (
        "GET /stats/history?step=10&last=2161",
        {},
        "409 Bad Request: last must be 1 to 2160 points, not 2161",
    ),
    (
        "GET /events?to=1",
        {},
        "409 Bad Request: the query has no parameter 'to' → the parameters are since, tail, follow",
    ),
    (
        "POST /prune?dry_run=1",
        {},
        "409 Bad Request: the query has no parameter 'dry_run' → it takes none",
    ),
    ("GET /events?since=1&since=2", {}, "409 Bad Request: the query has the parameter since twice"),
    (
        "GET /instances/web-9/logs?since=noon",
        {},
        "409 Bad Request: since must be a time such as 2026-01-31T12:00:00Z, or a duration such as "
        "90s, 10m or 2h, not 'noon'",
    ),
    ("GET /logs", {}, "409 Bad Request: give either instance, once or more, or all=1"),
    (
        "GET /instances/web-9/logs?stream=stdin",
        {},
        "409 Bad Request: stream must be stdout or stderr, not 'stdin'",
    ),
    ("GET list", {}, "400 Bad Request: a request's target begins with a slash (RFC 9112, 3.2)"),
    (
        "GET /list",
        {"host": "Host: a\r\nHost: b"},
        "400 Bad Request: a request has one Host header (RFC 9112, 3.2)",
    ),
    (
        "GET /list",
        {"host": "Host: evil.example"},
        "403 Forbidden: the Host of this request is 'evil.example', which is not a name of "
        "this manager → ask for localhost, or for the address that --interface gives",
    ),
    (
        "GET /list",
        {"host": "Host: localhost\r\nOrigin: http://evil.example"},
        "403 Forbidden: a web page of another site sent this request → no page may: use the "
        "CLI, or a program such as curl",
    ),
    (
        "GET /list",
        {"host": "Host: localhost\r\nContent-Length: x"},
        "400 Bad Request: this is not HTTP/1.1, or not clear enough to be safe (RFC 9112)",
    ),
    (
        "GET /list",
        {"caller": None},
        "401 Unauthorized: only authenticated callers are served here → send a token of the "
        "manager's --tokens file (TXCONTAIN_TOKEN for the CLI), or a client certificate",
    ),
    (
        "DELETE /destroyall",
        {"caller": Caller("ann", "read")},
        "403 Forbidden: this caller has read-only access → use a token whose role is write: "
        "`txcontain token NAME write` makes one",
    ),
    (
        "POST /config",
        {"host": f"Host: localhost\r\nContent-Length: {LONGEST_REQUEST + 1}"},
        "409 Bad Request: the request is longer than 16777216 bytes",
    ),
    (
        "POST /config",
        {"host": "Host: localhost\r\nContent-Length: 9", "seconds": 30},
        "408 Request Timeout: the request was not complete in time",
    ),
    (
        "GET /list",
        {"raises": OSError(errno.EIO, "Input/output error", "/state/configs")},
        "500 Internal Server Error: answering this request → EIO: Input/output error → "
        "/state/configs",
    ),
    (
        "GET /list",
        {"raises": ZeroDivisionError()},
        "500 Internal Server Error: the manager has a bug, and could not do this → its log "
        "has the details: please report them",
    ),
    (
        "GET /list",
        {"connections": 3},
        "503 Service Unavailable: there are too many connections: try again later",
    ),
)

# What is typed (and how the manager, or the way to it, then is), and what is said.
COMMANDS: tuple[tuple[Any, ...], ...] = (
    (
        ["commit", "--pause", "web-1", "app:2"],
        {},
        "An image has all of an instance, which stands still: leave out the options.",
    ),
    (
        ["export", "--stack", "shop", "--to", "oci", "x"],
        {},
        "A stack has neither version nor image: --to is compose or kubernetes.",
    ),
    (
        ["export", "web", "--to", "helm", "x"],
        {},
        "There is no target helm: it is one of oci, docker-archive, registry, compose, kubernetes, "
        "systemd.",
    ),
    (
        ["export", "web", "--to", "registry", "r:5000/app", "--image", "app"],
        {},
        "The image is called as --to says: leave out --image.",
    ),
    (
        ["export", "web", "--insecure", "--to", "compose", "x"],
        {},
        "No registry is asked: --insecure goes with --to registry.",
    ),
    (
        ["cp", "", "a"],
        {},
        "txcontain cp: error: argument SOURCE: it must be a path, or INSTANCE:PATH",
    ),
    (
        ["cp", "web-1:", "a"],
        {},
        "txcontain cp: error: argument SOURCE: it names no path: write web-1:/PATH",
    ),
    (
        ["cp", "a:/x", "b:/y"],
        {},
        "Files can't be copied from one instance to another: copy them here first.",
    ),
    (["cp", "x", "y"], {}, "One of the two must be in an instance: INSTANCE:PATH."),
    (["cp", "/no/such", "web-1:/x"], {}, "There is no /no/such here."),
    (
        ["volumes", "import", "a", "/no/file"],
        {},
        "Can't open /no/file: No such file or directory.",
    ),
    (
        ["exec", "-e", "NO_SUCH_VARIABLE", "web-1", "ls"],
        {},
        "txcontain exec: error: argument -e/--env: write NAME=VALUE: there is no variable "
        "'NO_SUCH_VARIABLE' here",
    ),
    (
        ["explain", "web-1", "ls"],
        {},
        "Explain INSTANCE, NAME MAJOR MINOR, --exec INSTANCE COMMAND, or --unpacking TARBALL.",
    ),
    (
        ["destroy", ""],
        {},
        "txcontain destroy: error: argument INSTANCE: the name is empty: `txcontain ps` shows"
        " the instances",
    ),
    (
        ["logs", "-n", "-3", "web-1"],
        {},
        "txcontain logs: error: argument -n/--lines/--tail: it must be a whole number, 0 or more, "
        "not '-3'",
    ),
    (
        ["configs", "show", "web"],
        {},
        "txcontain configs show: error: argument NAME-MAJOR-MINOR: 'web' is not NAME-MAJOR-MINOR: "
        "`txcontain configs` shows them",
    ),
    (
        ["ps", "--filter", "colour=red"],
        {},
        "txcontain ps: error: argument --filter: 'colour=red' is no KEY=VALUE with one of these"
        " keys: name, config, state, ready, health, label",
    ),
    (
        ["ps", "--filter", "state=runing"],
        {},
        "txcontain ps: error: argument --filter: there is no state 'runing': it is one of starting,"
        " running, paused, waiting, stopping, ended, failed, stopped",
    ),
    (["rm", "web"], {}, "txcontain: error: there is no command 'rm': did you mean destroy?"),
    (
        ["ps", "--format", "{{.Colour}}"],
        {},
        "txcontain ps: error: argument --format: there is no field .Colour: the fields are"
        " .Instance, .Config, .State, .Ready, .Health, .Age, .Node, .Pid, .Ports, .Address,"
        " .Restarts, .Exit",
    ),
    (
        ["ps", "--format", "{{json .}}"],
        {},
        "txcontain ps: error: argument --format: '{{json .}}': write a field as {{.Instance}}",
    ),
    (["lunch"], {}, "txcontain: error: there is no command 'lunch': did you mean launch?"),
    (
        ["ps", "--colour"],
        {},
        "txcontain ps: error: there is no argument '--colour': --help shows those there are",
    ),
    (
        ["secrets", "set", "a/b"],
        {},
        "txcontain secrets set: error: argument SECRET: a name is up to 63 letters, digits, '.', "
        "'_' and '-'",
    ),
    (["run", "basefs.tar.gz"], {}, "Say what to run in it: txcontain run IMAGE COMMAND..."),
    (
        ["run", "-di", "basefs.tar.gz", "ls"],
        {},
        "-d leaves it, and -i without -t stays with it: choose one of them.",
    ),
    (
        ["attach", "--detach-keys", "ctrl-ä", "web-1"],
        {},
        "txcontain attach: error: argument --detach-keys: write keys such as ctrl-p,ctrl-q or "
        "ctrl-x,d, not 'ctrl-ä'",
    ),
    (
        ["run", "-e", "NO_SUCH", "basefs.tar.gz", "ls"],
        {},
        "txcontain run: error: argument -e/--env: write NAME=VALUE: there is no variable 'NO_SUCH' "
        "here",
    ),
    (
        ["run", "-v", "data", "basefs.tar.gz", "ls"],
        {},
        "txcontain run: error: argument -v/--volume: write NAME:/PATH, or NAME:/PATH:ro, not "
        "'data'",
    ),
    (["logs"], {}, "Name the instances whose logs to show, or give --all."),
    (
        ["logs", "-n", "all", "web-1"],
        {},
        "txcontain logs: error: argument -n/--lines/--tail: it must be a whole number, 0 or more, "
        "not 'all'",
    ),
    (
        ["token", "a b", "read"],
        {},
        "txcontain token: error: argument NAME: a name is up to 64 letters, digits, '_', '.',"
        " '@' and '-'",
    ),
    (
        ["--url", "foo", "list"],
        {},
        "txcontain: error: argument --url: 'foo' is not the address of a manager: write "
        "http://HOST:PORT, https://HOST:PORT or unix:/PATH",
    ),
    (
        ["list"],
        {"TXCONTAIN_URL": "foo"},
        "txcontain: error: TXCONTAIN_URL: 'foo' is not the address of a manager: write "
        "http://HOST:PORT, https://HOST:PORT or unix:/PATH",
    ),
    (
        ["list"],
        {"TXCONTAIN_TOKEN": "a b"},
        "txcontain: error: TXCONTAIN_TOKEN: it holds a character that no token has",
    ),
    (["upload", "/no/such.cfg"], {}, "Can't read /no/such.cfg: No such file or directory."),
    (
        ["list"],
        {"error": ConnectionRefusedError()},
        "Nothing listens at http://localhost:8080: start the manager with `twistd "
        "containerd-lite`, or name another manager with --url.",
    ),
    (
        ["--url", "http://h:1", "list"],
        {"error": ConnectionRefusedError()},
        "Nothing listens at http://h:1: start the manager on that host, or name another "
        "manager with --url.",
    ),
    (
        ["--url", "http://h:1", "list"],
        {"error": DNSLookupError("no such host")},
        "Can't connect to http://h:1: DNS lookup failed: no such host.",
    ),
    (
        ["list"],
        {"error": ResponseFailed([Failure(ValueError())])},
        "The manager at http://localhost:8080 hung up before its answer was complete: if it "
        "was restarted, run this command again.",
    ),
    (
        ["list"],
        {"answer": b"<html>"},
        "What answers at http://localhost:8080 is not a txcontain manager, or one of another "
        "version: its answer can't be read (Expecting value: line 1 column 1 (char 0)).",
    ),
    (
        ["list"],
        {"answer": b'{"instances": 1}'},
        "What answers at http://localhost:8080 is not a txcontain manager, or one of another "
        "version: its answer can't be read (it lacks what such an answer must have).",
    ),
    (
        ["list"],
        {"answer": None},
        "The manager at http://localhost:8080 did not answer within 15 s. It may still do "
        "what it was asked: `txcontain ps` shows what is running.",
    ),
    (
        ["--url", "http://h:1", "list"],
        {"TXCONTAIN_TOKEN": "secret"},
        "Anyone on the way could read the token over http://h:1: use https.",
    ),
    (
        ["--url", "https://h:1", "--ca", "/no/ca.pem", "list"],
        {},
        "Can't read /no/ca.pem: No such file or directory.",
    ),
    (
        ["--url", "https://h:1", "--ca", "/dev/null", "list"],
        {},
        "/dev/null: this is not what it should be, in PEM form.",
    ),
)

# Options of twistd containerd-lite, and why they are refused.
OPTIONS = (
    (
        "--host-folders /srv:data",
        "--host-folders takes absolute paths, not /, with ':' between them, not '/srv:data'",
    ),
    ("--port http", "--port takes a whole number from 0 to 65535, not 'http'"),
    ("--pool 1001", "--pool takes a whole number from 0 to 1000, not '1001'"),
    ("--layer-size 0", "--layer-size takes a whole number from 1 to 1000000000000000000, not '0'"),
    (
        "--subnet 10.87.0.0/31",
        "--subnet takes a network of 4 addresses or more, such as 10.87.0.0/16, not '10.87.0.0/31'",
    ),
    (
        "--subnet6 fe80::/64",
        "--subnet6 takes a private network of IPv6 with 48 to 96 bits, such as fd00:1::/64, or "
        "none, not 'fe80::/64'",
    ),
    ("--bridge a/b", "--bridge takes up to 15 letters, digits and '_', a letter first"),
    ("--state /a,b", "--state takes a path without ',', ':' and '\\', not /a,b"),
    ("--tls-cert x", "--tls-cert needs --tls-key"),
    ("--port 0", "--port 0 needs --unix-socket: else no one could ask"),
    (
        "--interface 0.0.0.0",
        "--interface 0.0.0.0 can be reached from other hosts: that needs --tls-cert and "
        "--tls-key, and --tokens or --tls-client-ca (see docs/access.md)",
    ),
    (
        "--interface 0.0.0.0 --allow-unsafe",
        "--allow-unsafe is only for a manager that answers on loopback addresses",
    ),
    (
        "--interface here",
        "--interface here is not an address of this host: give one of those that `ip address`"
        " shows, or leave it out",
    ),
    ("--unix-socket x --unix-group nobodies", "--unix-group: this host has no group nobodies"),
    ("--tokens /no/tokens", "/no/tokens can't be read: No such file or directory"),
    ("--nothing", "option --nothing not recognized"),
    ("--engine docker", "--engine takes here or swarm, not 'docker'"),
    ("--engine swarm", "--engine swarm needs --docker"),
    ("--registry r:5000", "--registry needs --engine swarm"),
    (
        "--docker-certificates /no",
        "--docker-certificates: /no/ca.pem can't be read: No such file or directory",
    ),
    (
        "--docker tcp://h:2375",
        "--docker takes unix:/PATH or https://HOST:PORT, with ',' between several, not "
        "'tcp://h:2375'",
    ),
    (
        "--engine swarm --registry r:5000 --docker https://h:2376",
        "--docker https://... needs --docker-certificates: Docker asks for one",
    ),
    (
        "--registry r",
        "--registry takes HOST:PORT, as all hosts of the swarm find it, not 'r'",
    ),
)

KNOWN = {f"web-{number}": Known(("web", "1", "01")) for number in range(1, 8)}
PLAN = [("unshare", {}), ("overlay", {"target": "/data"}), ("exec", {"path": "/run.sh"})]


def step(
    number: int, call: str, errno_: int, path: str = "", cause: str = "", hint: str = ""
) -> Callable[..., Any]:
    """The error where a step of PLAN fails, as its init tells it."""
    said = {
        "step": number,
        "call": call,
        "errno": errno_,
        "path": path,
        "cause": cause,
        "hint": hint,
    }
    return lambda test: diagnose.of_step(PLAN, StepFailed(said))


def early_end(words: str) -> Callable[..., Any]:
    """The error where a script ends before it listens."""
    how = Exit(status=3, reason="exit status 3")
    return lambda test: diagnose.of_early_end("/run.sh", 8000, how, words)


def launch(**changes: Any) -> Any:
    """Launch a config, with a manager on which all goes well but for what a row prepares."""
    return lambda test: test.manager.launch(*test.keep(**changes))


def reads_files(test: Any) -> Any:
    """Read files of an instance whose script does not run yet."""
    test.reactor.works = False
    test.start(launch()(test))
    (instance,) = test.manager.instances.values()
    return files.read(test.manager, instance, "/")


def commits(name: str, target: str | None = None, **changes: Any) -> Callable[..., Any]:
    """Keep the files of an instance whose config is changed in these keys."""

    def commit(test: Any) -> Any:
        instance = test.launch(**changes)
        with open(os.path.join(test.manager.mountables, "h.tar"), "w"):
            pass
        return files.commit(test.manager, instance, name, target, bool)

    return commit


def without_image(test: Any) -> Any:
    """The base image is not there."""
    test.manager.layers.missing = ["basefs.tar.gz"]
    return launch()(test)


def unreadable(error: int) -> Callable[..., Any]:
    """Launch a config whose file can't be read."""

    def launch_it(test: Any) -> Any:
        path = os.path.join(test.manager.configs.folder, "web-1-01.cfg")
        fails = mock.patch("os.open", side_effect=os_error(error, path))
        launched = launch()(test)
        with fails:
            return test.failureResultOf(test.start(launched)).value

    return launch_it


def os_error(error: int, path: str) -> OSError:
    """What a system call raises."""
    return OSError(error, os.strerror(error), path)


def without_folder(test: Any) -> Any:
    """The folder of the instances is not there."""
    os.rmdir(os.path.join(test.folder, "instances"))
    return launch()(test)


def on_a_taken_port(test: Any) -> Any:
    """A program of the host's listens on PORT."""
    test.kernel.listening[8000] = 4711
    return launch(startup_env="PORT=8000")(test)


def tokens(text: str, mode: int = 0o600) -> Callable[..., Any]:
    """Read a file of tokens."""

    def read(test: Any) -> Any:
        path = Path(test.folder, "tokens")
        path.write_text(text)
        path.chmod(mode)
        return read_tokens(str(path))

    return read


def without_volumes(change: str) -> Callable[..., Any]:
    """The folder of the volumes is not there, when one is to be made or removed."""

    def call(test: Any) -> Any:
        volumes = test.manager.volumes
        if change == "remove":
            test.now(volumes.make("pg"))
        shutil.rmtree(volumes.folder)
        return volumes.make("pg") if change == "make" else test.manager.remove_volume("pg")

    return call


def removed_while_in_use(test: Any) -> Any:
    """An instance uses the volume."""
    test.launch(volumes=["pg /data"])
    return test.manager.remove_volume("pg")


# What is done, the call that does it, and what is said.
CALLS = (
    (
        "remove a volume that is used",
        removed_while_in_use,
        "instances use the volume pg → web-ID → destroy them first",
    ),
    (
        "launch for a connection, without one",
        launch(command=["cat"], per_connection=True),
        "web-1-01.cfg is for one connection, and here is none → write a stack with a service of "
        "it: it runs one for each connection to its ports",
    ),
    (
        "remove a volume that is not there",
        lambda test: test.manager.remove_volume("pg"),
        "there is no volume 'pg' → `txcontain volumes ls` shows those there are",
    ),
    (
        "make a volume without a folder for it",
        without_volumes("make"),
        "making the volume pg → ENOENT: No such file or directory → FOLDER/volumes/.pg-ID.json",
    ),
    (
        "remove a volume without its folder",
        without_volumes("remove"),
        "removing the volume pg → ENOENT: No such file or directory → FOLDER/volumes/pg",
    ),
    (
        "read files of an instance that is still being started",
        reads_files,
        "web-ID is still being started → its files can't be reached now: try again",
    ),
    (
        "keep files under a name that is a path",
        commits("../a.tar"),
        "mountable must be a plain name such as data-1.tar, not '../a.tar'",
    ),
    (
        "keep files of an instance that can write nowhere",
        commits("a.tar"),
        "web-ID has no READWRITE mount and no writable root to keep",
    ),
    (
        "keep files of an instance that can write to several places",
        commits("a.tar", writable_root=True, mounts=["h.tar /h READWRITE"]),
        "web-ID can write to several places → say which with mount: /h, /",
    ),
    (
        "keep files of another place",
        commits("a.tar", "/x", mounts=["h.tar /h READWRITE"]),
        "web-ID has no READWRITE mount at '/x' → it has /h",
    ),
    (
        "keep files under a name that is taken",
        commits("h.tar", mounts=["h.tar /h READWRITE"]),
        "there is a h.tar in mountables/ already → choose another name, or remove that file",
    ),
    ("launch without the base image", without_image, "there is no basefs.tar.gz in base_images/"),
    (
        "launch while the disk can't be read",
        unreadable(errno.EIO),
        "reading web-1-01.cfg → EIO: Input/output error → FOLDER/configs/web-1-01.cfg",
    ),
    (
        "launch while too many files are open",
        unreadable(errno.EMFILE),
        "reading web-1-01.cfg → EMFILE: Too many open files → FOLDER/configs/web-1-01.cfg → too "
        "many files are open",
    ),
    (
        "launch without a folder for it",
        without_folder,
        "making the instance's folder → ENOENT: No such file or directory → "
        "FOLDER/instances/web-ID",
    ),
    (
        "launch on a port that a program has",
        on_a_taken_port,
        "port 8000 is taken → by other (process 4711) → end that, or set another PORT in "
        "startup_env (or publish another, in ports)",
    ),
    (
        "a name that no instance has, and none nearly has",
        lambda _: match("zzz", KNOWN),
        "there is no instance zzz → `txcontain ps -a` shows those there are",
    ),
    (
        "a name that no instance has, and one nearly has",
        lambda _: match("wbe-1", KNOWN),
        "there is no instance wbe-1 → did you mean web-1?",
    ),
    (
        "a beginning that several instances have",
        lambda _: match("we", KNOWN),
        "7 instances begin with we → name one of them: web-1, web-2, web-3, web-4, web-5 and 2 "
        "more",
    ),
    (
        "a config that has several instances, for what takes one",
        lambda _: match("config:web", KNOWN),
        "config:web stands for 7 instances → name one of them: web-1, web-2, web-3, web-4, web-5 "
        "and 2 more",
    ),
    (
        "publish a port that an instance has",
        lambda _: diagnose.of_port(Port("127.0.0.1", 80, 80, "udp"), "the instance web-1"),
        "port 80/udp is taken → by the instance web-1 → end that, or set another "
        "PORT in startup_env (or publish another, in ports)",
    ),
    (
        "a script ends early",
        early_end("no disk\nno hope"),
        "/run.sh ended before it listened on port 8000 → exit status 3 → its last words: no "
        "disk\nno hope",
    ),
    (
        "a script ends early, and is silent",
        early_end(""),
        "/run.sh ended before it listened on port 8000 → exit status 3 → it wrote nothing to "
        "stderr",
    ),
    (
        "a step fails, of which no more is known",
        step(0, "unshare", errno.EIO),
        "step 1 of 3, unshare → unshare(2) → EIO: Input/output error",
    ),
    (
        "a step fails, by the machine",
        step(0, "unshare", errno.EPERM),
        "step 1 of 3, unshare → unshare(2) → EPERM: Operation not permitted → the manager "
        "lacks the privilege → run it as root, outside of a container",
    ),
    (
        "a step fails, by the image",
        step(1, "openat2", errno.ENOTDIR, "/data"),
        "step 2 of 3, overlay /data → openat2(2) → ENOTDIR: Not a directory → /data → a part "
        "of this path is a file in the image → mount it somewhere else",
    ),
    (
        "a step fails, as its init knows",
        step(
            2,
            "execve",
            errno.ENOENT,
            "/run.sh",
            "there is no /run.sh in the container",
            "correct startup_script, or mount it",
        ),
        "step 3 of 3, exec /run.sh → execve(2) → ENOENT: No such file or directory → /run.sh "
        "→ there is no /run.sh in the container → correct startup_script, or mount it",
    ),
    (
        "the host's tar is missing",
        lambda _: diagnose.of_tool(
            "unpacking a.tar",
            [],
            StepFailed(
                {
                    "step": 0,
                    "call": "execve",
                    "errno": errno.ENOENT,
                    "path": "/usr/bin/tar",
                    "cause": "",
                    "hint": "",
                }
            ),
        ),
        "unpacking a.tar → execve(2) → ENOENT: No such file or directory → /usr/bin/tar",
    ),
    (
        "the user namespaces are all taken",
        lambda _: free_range(range(FIRST_ID, FIRST_ID + MOST_RANGES * IDS, IDS)),
        "all 4000 ranges of user ids are taken → remove instances that have ended, or do "
        "without user namespaces",
    ),
    (
        "the file of tokens has a bad line",
        tokens("ann admin\n"),
        "line 1 of FOLDER/tokens is not NAME read|write HASH: `txcontain token`",
    ),
    (
        "others can write the file of tokens",
        tokens("", 0o666),
        "others than root can write to FOLDER/tokens: chown root, chmod 600",
    ),
)

# An errno of a system call of the manager's or of an init's, and what is said of it.
ERRNOS = {
    errno.ENOSPC: "the disk that holds the state folder is full → free some space",
    errno.EDQUOT: "the disk quota is used up → free some space",
    errno.ENOMEM: "the machine is out of memory → end something, or add memory",
    errno.EAGAIN: "a limit on processes or memory is reached → see ulimit -u and pids.max",
    errno.EMFILE: "too many files are open → raise the limit: ulimit -n",
    errno.ENFILE: "too many files are open on this machine → raise fs.file-max",
    errno.EPERM: "the manager lacks the privilege → run it as root, outside of a container",
    errno.ENODEV: "the kernel has no such file system, or can't load it → see modprobe(8)",
    errno.ENOTDIR: "a part of this path is a file in the image → mount it somewhere else",
    errno.EISDIR: "the image has a folder where a file belongs → change the image",
    errno.ELOOP: "a symbolic link in this path leads in circles, or is not allowed here → "
    "correct the image",
    errno.EINVAL: "the kernel refuses this mount → "
    "the state folder may lie on an overlay: put it on a real disk (--state)",
}

# What takes a real kernel, network, disk, or another process: the test that provokes it, and what
# is said, with `{}` for what varies. (What only a log holds is not here.)
ELSEWHERE = (
    (
        "a service of a stack with what a swarm can't keep",
        "swarm/test_stacks.py:test_refused",
        "services.{} can't be kept in a swarm",
    ),
    (
        "a service of a swarm that has only had one revision",
        "swarm/test_stacks.py:test_rollback",
        "no other revision of {} was there since its first one",
    ),
    (
        "one instance of several of a service",
        "swarm/test_stacks.py:test_replicas",
        "{} is one of those that the service {} has; `txcontain scale {}=N` has fewer, "
        "`txcontain down` none",
    ),
    (
        "a service that is to choose among hosts, where there is one",
        "services/test_asking.py:test_one_host",
        "services.{}.{}: this manager has one host; leave it out, or have a swarm: see "
        "docs/many-hosts.md",
    ),
    (
        "what only many hosts have, of one",
        "api/test_nodes.py:test_one_host",
        "this manager has one host, and no nodes; many hosts need `--engine swarm`: see "
        "docs/many-hosts.md",
    ),
    (
        "labels that are no object",
        "api/test_nodes.py:test_labels",
        '{} must be an object such as {"disk": "ssd"}, not {}',
    ),
    (
        "a label that has no name",
        "api/test_nodes.py:test_labels",
        "{}: a label's name is letters, digits, '.', '_' and '-', not {}",
    ),
    (
        "a label's value that is no text",
        "api/test_nodes.py:test_labels",
        "{} must be up to {} characters or null: {}",
    ),
    (
        "a word that names no node",
        "cli/test_nodes.py:test_misused",
        "{} names no node: `txcontain nodes` shows them",
    ),
    (
        "a word that is no label",
        "cli/test_nodes.py:test_misused",
        "write NAME=VALUE, or NAME- to take a label away, not {}",
    ),
    ("a node that there is not", "swarm/test_nodes.py:test_find", "there is no node {}"),
    (
        "a name that several nodes have",
        "swarm/test_nodes.py:test_find",
        "{} nodes are called {}; name one by its id: {}",
    ),
    (
        "a node that something else changes, too",
        "swarm/test_nodes.py:test_changed_meanwhile",
        "something else changes it all the time: try again",
    ),
    (
        "what only one host has, of many",
        "swarm/test_swarm.py:test_not_there",
        "the engine of many hosts does not have this",
    ),
    (
        "a swarm without a leader",
        "swarm/test_client.py:test_without_a_leader",
        "try again: a swarm that has lost its leader chooses another soon",
    ),
    (
        "a swarm that does not send all of a list",
        "swarm/test_client.py:test_rest_of_a_list",
        "the rest of a list does not come; try again",
    ),
    (
        "what Docker refuses",
        "swarm/test_client.py:test_refused",
        "Docker says: {}",
    ),
    (
        "a swarm that has not answered yet",
        "swarm/test_watch.py:test_never_seen",
        "asking the swarm; it does not answer: try again",
    ),
    (
        "a service of someone else's that has the name of an instance",
        "swarm/test_swarm.py:test_service_of_someone_else",
        "the swarm has a service {} that is someone else's; launch it again under another name",
    ),
    (
        "a service of someone else's that has the name of one of a stack",
        "swarm/test_stacks.py:test_service_of_someone_else",
        "the swarm has a service {} that is someone else's; remove that, or give yours another "
        "name",
    ),
    (
        "a whole config that is too long, launched in a swarm",
        "swarm/test_swarm.py:test_whole_refused",
        "a whole config of a launch in a swarm has at most {} bytes; upload it, and launch it by "
        "its name",
    ),
    (
        "what is copied into an instance of a swarm, and is compressed",
        "swarm/test_archives.py:test_refused",
        "what was sent is no tar stream, or is compressed",
    ),
    (
        "the same with keywords of pax that are none",
        "swarm/test_archives.py:test_refused",
        "what was sent has keywords that are not those of pax",
    ),
    (
        "the same with a size that pax tells, and that is no number",
        "swarm/test_archives.py:test_refused",
        "what was sent has a size that is none",
    ),
    (
        "the same, cut short",
        "swarm/test_archives.py:test_refused",
        "what was sent ends within a file",
    ),
    (
        "the same with a name of two megabytes",
        "swarm/test_archives.py:test_refused",
        "what was sent has a name that is too long",
    ),
    (
        "a path below a file of an instance of a swarm",
        "swarm/test_files.py:test_nothing",
        "{} is no folder, or one of those above it is none",
    ),
    (
        "a Docker that tells garbage of a file",
        "swarm/test_files.py:test_garbage",
        "Docker does not tell what is there",
    ),
    (
        "a path in /tmp of an instance of a swarm",
        "swarm/test_files.py:test_unseen",
        "what is below {} is in memory, or the kernel's: Docker does not copy it; `txcontain exec` "
        "reads and writes it",
    ),
    (
        "too many copies of files at once in a swarm",
        "swarm/test_files.py:test_many",
        "files are copied {} times in {} already; try again later",
    ),
    (
        "the logs of all in a swarm, and of those to come",
        "swarm/test_swarm.py:test_several",
        "a swarm does not tell of later instances; name those whose logs to follow",
    ),
    (
        "too many logs of a swarm at once",
        "swarm/test_swarm.py:test_several",
        "{} logs are asked for, and up to {} are sent together; name fewer instances",
    ),
    (
        "a log of a swarm that is cut off",
        "swarm/test_logs.py:test_cut_off",
        "sending a log; Docker did not send all of it",
    ),
    (
        "a file of a container of a swarm that is cut off",
        "swarm/test_client.py:test_read",
        "the rest of an answer does not come",
    ),
    (
        "a line of a terminal's log without an end",
        "swarm/test_logs.py:test_lines",
        "Docker sends a line that has no end",
    ),
    (
        "what is no log of a swarm",
        "swarm/test_logs.py:test_too_long",
        "Docker sends a stream that is not in frames",
    ),
    (
        "a command in a container of a node whose Docker is not known",
        "swarm/test_execs.py:test_elsewhere",
        "{} runs on the node {}, and no --docker leads to the Docker there",
    ),
    (
        "the same: what to do",
        "swarm/test_execs.py:test_elsewhere",
        "give the manager its address by --docker, too; or `{}` there",
    ),
    (
        "a command in a container of a swarm that has ended",
        "swarm/test_execs.py:test_over",
        "only one that runs can be looked into, or run a command",
    ),
    (
        "a command in a container of a swarm that ends meanwhile",
        "swarm/test_execs.py:test_gone",
        "{} does not run any more",
    ),
    (
        "a folder where a command of a swarm can't work",
        "swarm/test_execs.py:test_not_started",
        "{} can't be its working directory",
    ),
    (
        "a command of a swarm that does not run in time",
        "swarm/test_execs.py:test_never_runs",
        "joining the container; the command does not run after {} s",
    ),
    (
        "a Docker that hangs up on a command",
        "swarm/test_execs.py:test_no_answer",
        "it has closed the connection without an answer",
    ),
    (
        "a Docker that does not run a command, whatever the network says",
        "swarm/test_execs.py:test_no_answer",
        "running a command in {}; try again",
    ),
    (
        "an answer of Docker that is no JSON",
        "swarm/test_client.py:test_no_json",
        "the answer of Docker is no JSON",
    ),
    (
        "a config with what a swarm can't keep",
        "swarm/test_swarm.py:test_refused",
        "{} can't be kept in a swarm",
    ),
    (
        "a config that is too long for a swarm",
        "swarm/test_mapping.py:test_too_long",
        "a config in a swarm has at most {} bytes",
    ),
    (
        "a task that does not start, for whatever reason",
        "swarm/test_mapping.py:test_failures",
        "the container did not start",
    ),
    (
        "a node that can't get an image",
        "swarm/test_mapping.py:test_failures",
        "its node could not get the image",
    ),
    (
        "the same: what to do",
        "swarm/test_mapping.py:test_failures",
        "see that all nodes reach the --registry",
    ),
    (
        "a port that is taken on all nodes",
        "swarm/test_mapping.py:test_failures",
        "each node has a container at this port already",
    ),
    (
        "a script without its interpreter, in a swarm",
        "swarm/test_mapping.py:test_failures",
        "{} needs an interpreter that is not there",
    ),
    (
        "a script that can't be run, in a swarm",
        "swarm/test_mapping.py:test_failures",
        "{} can't be run in the container",
    ),
    (
        "a task that does not run in time",
        "swarm/test_swarm.py:test_never_runs",
        "it does not run within {} seconds",
    ),
    (
        "a service whose tasks do not end",
        "swarm/test_swarm.py:test_waits",
        "removing the service {}; its tasks did not end within {} seconds",
    ),
    (
        "certificates without a swarm",
        "swarm/test_wiring.py:test_without_a_swarm",
        "--docker-certificates needs --engine swarm",
    ),
    (
        "an image for a terminal",
        "cli/test_exports.py:test_refused",
        "An image is nothing for a terminal: send it to a file or program.",
    ),
    (
        "an export of a config that there is not",
        "cli/test_exports.py:test_newest",
        "There is no config {}: `txcontain configs` shows those there are.",
    ),
    (
        "an export to a folder that is not empty",
        "cli/test_exports.py:test_refused",
        "{} is there already, and no empty folder: name another one.",
    ),
    (
        "an export of a name that an image can't have",
        "images/test_oci_writing.py:test_name_of_a_whiteout",
        "{} can't be in an image: a name with .wh. hides a file there → rename it",
    ),
    (
        "one to whom a registry has sent us on wants a login",
        "images/test_registry.py:test_not_to_whom_we_are_sent",
        "the registry {} sends us on to {}, which wants a login → only the registry itself gets it",
    ),
    (
        "a push that is cut again and again",
        "images/test_pushing.py:test_cut",
        "the registry {} hangs up",
    ),
    (
        "a commit of an instance whose disk is bounded",
        "integration/test_export.py:test_bounded",
        "what {} writes is in a file system of its own (limits.disk, disk_size) → keep a mount of "
        "it: `txcontain commit {} NAME.tar`",
    ),
    (
        "a commit under a digest",
        "integration/test_export.py:test_bounded",
        "an image is {} under a tag: its digest is that of what it is",
    ),
    (
        "a commit of an instance whose launch failed",
        "integration/test_export.py:test_bounded",
        "{} has no files: its launch failed → launch it again",
    ),
    (
        "an export of a folder that an overlay has renamed",
        "images/test_oci_writing.py:test_marks",
        "{} can't be in an image: a part of it is in a layer below",
    ),
    (
        "an export of folders that are nested too deep",
        "images/test_oci_writing.py:test_depth",
        "{} is more than {} folders deep",
    ),
    (
        "an export of a file that changes",
        "images/test_oci_writing.py:test_file_that_shrinks",
        "{} became shorter while it was read",
    ),
    (
        "an image that is not to be pulled",
        "integration/test_images.py:test_names",
        'there is no image {} here, and its config has "pull": "never" → pull it: '
        "`txcontain image pull {}`",
    ),
    (
        "an archive that can't be read",
        "images/test_registry.py:test_disk",
        "reading the archive of an image",
    ),
    (
        "a layer that can't be read",
        "images/test_registry.py:test_disk",
        "reading the layer {}",
    ),
    (
        "indexes that lead to indexes",
        "images/test_registry.py:test_deep",
        "it has more than {} indexes within each other",
    ),
    (
        "plain HTTP to another machine",
        "images/test_registry.py:test_insecure",
        "the registry {} is not on this machine → without TLS only a loopback address can be "
        "asked, such as 127.0.0.1:5000",
    ),
    (
        "another part of a blob",
        "images/test_registry.py:test_another_part",
        "the registry {} sends another part than it was asked for",
    ),
    (
        "a folder that tar can't read",
        "cli/test_images.py:test_unreadable",
        "tar could not read {}.",
    ),
    (
        "an image that says what no config can say",
        "integration/test_images.py:test_unusable",
        "the image {} can't be run as it says",
    ),
    (
        "two images in a file of base_images",
        "integration/test_images.py:test_two_in_a_file",
        "{} holds {} images, and a container has one → load them: `txcontain image load {}`",
    ),
    (
        "a load without a name",
        "integration/test_images.py:test_nameless",
        "the archive does not say what its image is called{} → name it",
    ),
    (
        "a load of two images with one name",
        "integration/test_images.py:test_nameless",
        "the archive has {} images: only one can be called {}",
    ),
    (
        "an image that is not there",
        "integration/test_images.py:test_names",
        "there is no image {} → `txcontain image ls` shows those there are",
    ),
    (
        "a tag of an image that has others",
        "engine/test_images.py:test_found",
        "there is no image {} → there is {}",
    ),
    (
        "a disk that can't be flushed",
        "images/test_layers.py:test_can_not_be_flushed",
        "flushing the layers of an image",
    ),
    (
        "a pull that nobody waits for",
        "images/test_registry.py:test_hang_up",
        "pulling {} → nobody waits for it any more",
    ),
    (
        "a registry that is slow for hours",
        "images/test_registry.py:test_too_long",
        "it takes longer than {} hours",
    ),
    (
        "an image that instances use",
        "integration/test_images.py:test_in_use",
        "instances use the image {} → destroy them first",
    ),
    (
        "a beginning of several digests",
        "engine/test_images.py:test_ambiguous",
        "{} stands for {} images → give more of the digest",
    ),
    (
        "an image that can't be written",
        "engine/test_images.py:test_disk_full",
        "keeping the image {}",
    ),
    (
        "a folder for a whiteout",
        "integration/test_images.py:test_hostile_layers",
        "{} has a folder {}: only a file can be a whiteout",
    ),
    (
        "a whiteout that leads out",
        "integration/test_images.py:test_hostile_layers",
        "{} has a whiteout that leads out of its folder: {}",
    ),
    (
        "a damaged record of an image",
        "container/test_defaults.py:test_damaged",
        "image must be an object, not {}",
    ),
    (
        "looking at a file fails",
        "engine/test_files.py:test_look",
        "looking at {} in {}",
    ),
    (
        "a copy into a folder that is not there",
        "cli/test_files.py:test_refused",
        "There is no folder {}: make it first.",
    ),
    (
        "a copy over a device",
        "cli/test_files.py:test_refused",
        "{} is a device, a pipe or a socket: copy to another name.",
    ),
    (
        "a copy to a name with a slash",
        "cli/test_files.py:test_refused",
        "There is no folder {}: make it first, or leave out the slash.",
    ),
    (
        "a copy of a folder over a file",
        "cli/test_files.py:test_refused",
        "A folder can't be copied over the file {}.",
    ),
    (
        "a copy of a file over a folder",
        "cli/test_files.py:test_refused",
        "A file can't be copied over the folder {}.",
    ),
    (
        "a copy to a terminal",
        "cli/test_files.py:test_terminal",
        "A tar stream is nothing for a terminal: send it to a file or program.",
    ),
    (
        "a copy into a folder that can't be written",
        "cli/test_files.py:test_this_machine",
        "Can't write to {}: {}.",
    ),
    (
        "a copy of what is no tar stream",
        "cli/test_files.py:test_cut_short",
        "Not everything could be written: {}.",
    ),
    (
        "a copy without tar",
        "cli/test_files.py:test_this_machine",
        "`cp` needs the program tar: install it.",
    ),
    (
        "a volume was removed while a launch had yet to mount it",
        "container/test_init.py:test_a_volume_that_was_removed",
        "{} → the volume was removed → launch it again",
    ),
    (
        "a volume is too small for what is to fill it",
        "integration/test_volume_size.py:test_too_small",
        "{} → ENOSPC: No space left on device → {} → it takes more than the volume's size, {} "
        "bytes → make a larger volume",
    ),
    (
        "a volume is made that there is already",
        "integration/test_volume_size.py:test_removed",
        "there is a volume {} already → choose another name, or remove it",
    ),
    (
        "a volume that has data is imported",
        "integration/test_transfers.py:test_refused",
        "there is data in the volume {} → import it under another name, or remove this one first",
    ),
    (
        "a volume is imported under a name that it can't have",
        "integration/test_transfers.py:test_refused",
        "the name of a volume must be up to 50 letters, digits, '.', '_' and '-', not {}",
    ),
    (
        "the disk is full when a volume is imported",
        "engine/test_volumes.py:test_cut_short",
        "importing the volume {}",
    ),
    (
        "a volume that nothing has used is exported",
        "api/test_volumes.py:test_export",
        "the volume {} has no data yet → its first use makes it",
    ),
    (
        "what is to be exported with pause=1 can't be stopped",
        "engine/test_volumes.py:test_too_slow",
        "pausing instances → some can't be stopped: the kernel is busy",
    ),
    (
        "the client of an import hangs up",
        "images/test_packing.py:test_client_hangs_up",
        "importing the volume {} → the client hung up",
    ),
    (
        "the client of an export takes too little",
        "images/test_packing.py:test_stalled",
        "the client took less than {} MiB in {} seconds",
    ),
    (
        "a folder of the host is below none that is allowed",
        "integration/test_volumes.py:test_not_allowed",
        "{} → it is no folder that may be mounted → the manager allows those below {} "
        "(--host-folders)",
    ),
    (
        "no folder of the host is allowed",
        "container/test_init.py:test_host_folders_that_are_not_allowed",
        "{} → it is no folder that may be mounted → the manager allows none: start it with "
        "--host-folders",
    ),
    (
        "a link in a folder of the host leads out",
        "integration/test_volumes.py:test_links",
        "a symbolic link leads out of {}",
    ),
    (
        "a folder of the host is missing",
        "integration/test_volumes.py:test_missing",
        "it is no folder of the host → make it, or correct the config",
    ),
    (
        "a volume is on a file system that can't map owners",
        "container/test_init.py:test_owners_that_can_not_be_mapped",
        "this kernel can't map the owners of files on its file system → have it on ext4, XFS or "
        'Btrfs, or leave "user_namespace" out',
    ),
    (
        "reading files fails",
        "engine/test_files.py:test_failures",
        "reading {} in {}",
    ),
    (
        "writing files fails",
        "engine/test_files.py:test_left_out",
        "writing to {} in {}",
    ),
    (
        "a commit fails",
        "engine/test_files.py:test_failed",
        "keeping {} of {} as {}",
    ),
    (
        "a link leads in circles",
        "engine/test_files.py:test_missing",
        "{} can't be reached: {}",
    ),
    (
        "a diff of what is in memory",
        "engine/test_files.py:test_memory",
        "what {} writes is in memory (limits.disk), where no one sees it",
    ),
    (
        "a diff of what is on a disk of its own",
        "integration/test_disk_size.py:test_stays",
        "what {} writes is on a disk of its own (disk_size), which no one sees",
    ),
    (
        "a commit of what was in memory",
        "engine/test_files.py:test_memory",
        "what {} wrote was in memory (limits.disk), and is gone",
    ),
    (
        "the manager's certificate is another's",
        "integration/test_access.py:test_cli",
        "No trust between {} and this side: {}",
    ),
    (
        "the reader's disk is full",
        "cli/test_commands.py:test_full_disk",
        "Can't write the output: {}.",
    ),
    (
        "the log process has no descriptor left",
        "runtime/test_pool.py:test_pipes_not_held",
        "opening the pipes of a container's output → {}",
    ),
    (
        "nftables is not installed",
        "network/test_firewall.py:test_missing",
        "leading names and ports to containers on the private network → the program nft is missing "
        "→ install the package nftables",
    ),
    (
        "the kernel refuses the packet filter",
        "network/test_firewall.py:test_failed",
        "changing the packet filter by nft → {} → the manager must run as root, and the kernel "
        "must "
        "have nf_tables with NAT",
    ),
    (
        "a target leads to /proc",
        "integration/test_wall.py:test_mounts_led_astray",
        "openat2(2) → {} → a symbolic link leads to {}, which is the container's own → mount it "
        "somewhere else, or correct the image",
    ),
    (
        "a container asks the manager",
        "api/test_callers.py:test_in_a_container",
        "this request comes from inside of {} → if it is to manage containers, write "
        '"manage": true in its config',
    ),
    (
        "the place of a caller can't be learnt",
        "api/test_callers.py:test_untold",
        "the manager can't tell where this request comes from, and it may be a container → try "
        "again in a moment: its log says why",
    ),
    (
        "a caller hangs up before it is known",
        "api/test_callers.py:test_gone",
        "whoever sent this request has hung up already, and may have been a container → stay "
        "connected until the answer is there",
    ),
    (
        "an owner that the image does not know",
        "container/test_init.py:test_unknown",
        "getpwnam(3) → /etc/passwd → the image knows no user {} → name a user of its "
        "/etc/passwd, or "
        "a number",
    ),
    (
        "a group that the image does not know",
        "container/test_init.py:test_unknown",
        "getgrnam(3) → /etc/group → the image knows no group {} → name a group of its "
        "/etc/group, or "
        "a number",
    ),
    (
        "a command in a paused instance",
        "engine/test_life.py:test_exec",
        "{} is paused → resume it first",
    ),
    (
        "a terminal for a command, where there is none",
        "cli/test_exec.py:test_no_terminal",
        "-t needs a terminal, and standard input is none: leave -t out.",
    ),
    (
        "the overview, where there is no terminal",
        "cli/test_overview.py:test_no_terminal",
        "Without an instance, top needs a terminal: `txcontain stats` does not.",
    ),
    (
        "the overview, on a terminal that curses does not know",
        "integration/test_top.py:test_unknown_terminal",
        "This terminal can't show it: {}. `txcontain ps` can.",
    ),
    (
        "a command in an instance that has ended",
        "runtime/test_sessions.py:test_only_in_one_that_runs",
        "{} {} → a command can only be run in one that runs",
    ),
    (
        "the processes of an instance that has ended",
        "api/test_resources.py:test_top_of_none",
        "{} is {} → only one that runs has processes",
    ),
    (
        "a prune that has nobody to ask",
        "cli/test_disk.py:test_nobody_to_ask",
        "Nothing was removed: there is no terminal to ask at. Give --force.",
    ),
    (
        "too many commands in an instance",
        "runtime/test_sessions.py:test_bounds",
        "{} commands run in {} already → end one of them first",
    ),
    (
        "too many commands",
        "runtime/test_sessions.py:test_bounds",
        "{} commands run in instances already → end one of them first",
    ),
    (
        "too many who are attached",
        "api/test_attach.py:test_bound",
        "{} are attached to {} already → end one of them first",
    ),
    (
        "someone attaches to an instance without a terminal",
        "api/test_attach.py:test_no_terminal",
        '{} has no terminal → its config needs "tty": true; its output is in its log',
    ),
    (
        "too many sizes, exports, imports or looks at the same time",
        "test_later.py:test_turns",
        "{} {} are asked for already → try again later",
    ),
    (
        "a command that never gets into its container",
        "runtime/test_sessions.py:test_too_slow",
        "joining the container → the command does not run after {} s → see whether the container "
        "is out of memory, or of processor time",
    ),
    (
        "a command's init that does not connect",
        "runtime/test_sessions.py:test_too_slow",
        "starting an init → it has not connected within {} s",
    ),
    (
        "no process for a command's init",
        "runtime/test_sessions.py:test_can_not_spawn",
        "starting an init → {}",
    ),
    (
        "a command's init that ends",
        "runtime/test_sessions.py:test_init_killed",
        "preparing to join a container → {}",
    ),
    (
        "a command in a container that has no process left",
        "runtime/test_sessions.py:test_failures",
        "it has as many processes as limits.pids allows → end some of them, or raise the limit",
    ),
    (
        "an owner beyond the user namespace",
        "integration/test_user_namespace.py:test_owner",
        "setuid(3) → {} → a user namespace has only the ids below {} → name another user",
    ),
    (
        "an environment that grows",
        "container/test_init.py:test_growth",
        "setenv(3) → startup_env, filled in, is longer than {} characters → shorten it",
    ),
    (
        "a bug in a step",
        "container/test_init.py:test_an_unknown_step_is_no_silence",
        "{} → this is a bug in txcontain: report it",
    ),
    (
        "the manager ends in the middle of a launch",
        "container/test_init.py:test_the_manager_ends_meanwhile",
        "recv(2) → ECONNRESET: Connection reset by peer → the manager has ended",
    ),
    (
        "a script without #!, and no /bin/sh",
        "container/test_init.py:test_no_shell",
        "execve(2) → /bin/sh → {} has no #! line and there is no working /bin/sh to run it → "
        "give it "
        "a #! line with an interpreter that the image has",
    ),
    (
        "a script that is not there",
        "integration/test_failures.py:test_missing",
        "there is no {} in the container → correct startup_script, or mount it",
    ),
    (
        "a command that is nowhere",
        "container/test_init.py:test_nowhere",
        "there is no {} in the folders of PATH ({}) → correct command, or add the program to the "
        "image",
    ),
    (
        "a command in one string",
        "container/test_init.py:test_nowhere",
        "there is no {} in the folders of PATH ({}) → make each argument of command a string of "
        "its own",
    ),
    (
        "disk_size without e2fsprogs",
        "container/test_init.py:test_why_not",
        "there is no mke2fs on this machine → install e2fsprogs, or do without a size",
    ),
    (
        "disk_size without loop devices",
        "container/test_init.py:test_why_not",
        "this machine has no loop devices → modprobe loop, or do without a size",
    ),
    (
        "a start while files of a stopped one are copied",
        "container/test_init.py:test_why_not",
        "it is in use: files are copied, or its last processes end → try again in a moment",
    ),
    (
        "a workdir that is not there",
        "container/test_init.py:test_not_entered",
        "there is no folder {} in the container → correct workdir, or mount it",
    ),
    (
        "a workdir that is a file",
        "container/test_init.py:test_not_entered",
        "{} is not a folder that can be entered → name another one as workdir",
    ),
    (
        "a script with arguments",
        "container/test_init.py:test_with_arguments",
        "there is no {}: startup_script is a path, and takes no arguments → name a script that "
        "runs "
        "it with its arguments",
    ),
    (
        "a script in a folder that is shut",
        "integration/test_inside.py:test_a_root_that_is_shut",
        "{} may not be entered by this startup_owner → give it the mode 755 in its tarball (it has "
        "{})",
    ),
    (
        "a byte order mark",
        "container/test_init.py:test_a_late_interpreter",
        "the #! of {} is not at the very beginning: {} is before it → make #! the first two bytes "
        "of the file",
    ),
    (
        "a script that is a link to nothing",
        "integration/test_failures.py:test_dangling_link",
        "{} is a symbolic link to {}, which is missing → correct the link, or name another "
        "program as startup_script",
    ),
    (
        "a script below a file",
        "container/test_init.py:test_below_a_file",
        "{} can't be looked at: {} → correct startup_script",
    ),
    (
        "a script that is a folder",
        "integration/test_failures.py:test_folder",
        "{} is not a regular file → name a script or program as startup_script",
    ),
    (
        "a script that is not executable",
        "integration/test_failures.py:test_not_executable",
        "{} is not executable → chmod +x {} and pack it again",
    ),
    (
        "a script on a file system without programs",
        "container/test_init.py:test_mounted_noexec",
        "{} lies on a file system mounted noexec → place it outside of it",
    ),
    (
        "a script from Windows",
        "integration/test_failures.py:test_windows_line_ends",
        "{} has Windows line ends → convert them, as with: sed -i 's/\\r$//'",
    ),
    (
        "no interpreter",
        "integration/test_failures.py:test_interpreter_missing",
        "its interpreter {} is not in the container → change the script's first line, or add the "
        "interpreter to the image",
    ),
    (
        "an interpreter that is no program",
        "container/test_init.py:test_an_interpreter_that_can_not_run",
        "its interpreter {} can't be run → check that it is executable",
    ),
    (
        "no dynamic loader",
        "container/test_init.py:test_no_loader",
        "the dynamic loader that {} asks for is not in the container → add its C library to the "
        "image, or link it statically",
    ),
    (
        "another processor's program",
        "integration/test_failures.py:test_wrong_architecture",
        "{} is built for {}, not for this machine → build it for {}",
    ),
    (
        "a script of another owner",
        "integration/test_failures.py:test_not_for_this_owner",
        "{} may not be run by this startup_owner → check its mode and its folders'",
    ),
    (
        "a script of garbage",
        "integration/test_failures.py:test_no_program",
        "the kernel can't run {} → it needs a #! line, or to be a program for this machine",
    ),
    (
        "destroyed during its launch",
        "engine/test_manager.py:test_during_its_launch",
        "{} was destroyed while it was launched",
    ),
    (
        "the disk breaks at the end of a launch",
        "runtime/test_instance.py:test_disk_full",
        "keeping the instance → {}",
    ),
    (
        "stopped during its start",
        "engine/test_life.py:test_stopped_while_its_port_is_waited_for",
        "{} was stopped while it was started",
    ),
    (
        "a new name for what is about to go",
        "engine/test_renaming.py:test_state",
        "{} can't be renamed: it is {} → wait until it runs, or has ended and is kept",
    ),
    (
        "ports of an instance on the host's network",
        "engine/test_publishing.py:test_host_network",
        "{} has no address of its own to publish ports of → "
        'write "network": "private" in its config',
    ),
    (
        "a port that is not published",
        "engine/test_publishing.py:test_not_published",
        "{} does not publish {} → it publishes {}",
    ),
    (
        "a start of what its end removes",
        "engine/test_life.py:test_removed_at_its_end",
        "{} can't be started again: its end removes it → launch another one",
    ),
    (
        "the files of one whose launch failed",
        "engine/test_launching.py:test_files",
        "{} has no files: its launch failed → launch its config again",
    ),
    (
        "a stop during a launch",
        "engine/test_life.py:test_being_launched",
        "{} is being started → wait until it runs, or destroy it",
    ),
    (
        "a stop during which it is destroyed",
        "engine/test_life.py:test_destroyed_meanwhile",
        "{} was destroyed meanwhile",
    ),
    (
        "a start without images",
        "engine/test_life.py:test_images_removed",
        "the images of {} were removed, as it had ended → destroy it, and launch its config again",
    ),
    (
        "a start too soon after an end",
        "engine/test_life.py:test_something_left",
        "starting {} → of its last run something is left → {}",
    ),
    (
        "a terminal that can't be shown",
        "api/test_attach.py:test_log_is_unreadable",
        "the log of {}, from which its terminal is shown, can't be read → {} → it runs on: see "
        "what is wrong with the state folder's disk, and attach again",
    ),
    (
        "what was prepared for a start hangs in the kernel",
        "engine/test_life.py:test_does_not_end",
        "ending the process that was prepared for a start of {} → it was told to, and has not "
        "within {} s → see in /proc/PID/stack what the kernel waits for",
    ),
    (
        "a start after a power cut",
        "engine/test_life.py:test_ended_before_a_reboot",
        "starting {} → the machine went down before all that it had written was on the disk → "
        "destroy it, and launch its config again; to keep such data, stop an instance before a "
        'reboot, or write "restart" in its config',
    ),
    (
        "a signal to what does not run",
        "engine/test_life.py:test_not_running",
        "{} does not run: it is {} → start it first",
    ),
    (
        "a signal that can't be sent",
        "engine/test_life.py:test_no_descriptor",
        "sending a signal to {} → {}",
    ),
    (
        "no freezer",
        "engine/test_life.py:test_not_possible",
        "pausing {} → {} → this takes cgroup version 2, or the freezer of version 1",
    ),
    (
        "processes that do not freeze",
        "engine/test_life.py:test_does_not_freeze",
        "pausing {} → its processes did not stop within {} s",
    ),
    (
        "processes that will not end",
        "engine/test_manager.py:test_stuck_for_long",
        "ending {} → its processes were killed, and do not end → see in /proc/PID/stack what the "
        "kernel waits for, and destroy it again",
    ),
    (
        "a limit that the machine does not have",
        "engine/test_manager.py:test_no_such_limit",
        "limiting the container → {} → leave this limit out: the machine has no such control, or "
        "refuses the value",
    ),
    (
        "a tarball that is none",
        "integration/test_failures.py:test_no_tarball",
        "unpacking {} → not all of it could be unpacked → tar says: {} → is it a whole tarball?",
    ),
    (
        "a tarball that was cut short between two entries",
        "integration/test_hostile_tarballs.py:test_truncated",
        "unpacking {} → it ends without the end mark: it was cut short → is it a whole tarball?",
    ),
    (
        "a tarball that is being written",
        "images/test_layers.py:test_changes_all_the_time",
        "{} changes while it is unpacked → launch again when it is whole",
    ),
    (
        "a /tmp that is a link to itself",
        "images/test_metadata.py:test_circles",
        "{} is a symbolic link that leads in circles",
    ),
    (
        "no zstd, and a tarball that takes it",
        "images/test_programs.py:test_missing",
        "this machine has no {} → install it",
    ),
    (
        "no room for a layer",
        "integration/test_life.py:test_a_layer_that_does_not_fit",
        "unpacking {} → tar → the disk is full → free some space and launch again",
    ),
    (
        "a folder for a tarball",
        "integration/test_failures.py:test_folder_for_a_tarball",
        "{} is not a file",
    ),
    (
        "no tarball",
        "integration/test_failures.py:test_unknown_tarball",
        "there is no {} in {}/ → put it there, or correct the config",
    ),
    (
        "too much in a tarball",
        "images/test_bounds.py:test_any_tree",
        "{} holds more than {} files and folders",
    ),
    ("too much in a tarball", "images/test_bounds.py:test_size", "{} holds more than {} bytes"),
    (
        "too deep a tarball",
        "integration/test_hostile_tarballs.py:test_depth",
        "{} holds folders more than {} deep",
    ),
    (
        "too long a path in a tarball",
        "images/test_bounds.py:test_any_tree",
        "{} holds a path of more than {} bytes",
    ),
    (
        "an overlay's mark in a tarball",
        "images/test_bounds.py:test_device",
        "{} holds a mark that hides files (a character device 0, 0)",
    ),
    (
        "a key that is not the certificate's",
        "api/test_access.py:test_unusable_files",
        "--tls-key is not the key of --tls-cert",
    ),
    (
        "something will not go",
        "engine/test_manager.py:test_something_left",
        "{} has ended, but something is left",
    ),
    (
        "a name server of the host's",
        "integration/test_network.py:test_a_name_server_of_the_host",
        "answering for names on the bridge → {}, port {}: {} → have the host's own name server "
        "listen only on its own addresses",
    ),
    (
        "a bridge of another's",
        "integration/test_network.py:test_bridge_of_another",
        "using the bridge {} → it is not ours, but of {} → start the manager with another --bridge "
        "and --subnet",
    ),
    (
        "addresses that are in use",
        "integration/test_network.py:test_subnet",
        "making the bridge {} → {} is in use: there is a route to {}{} → start the manager with "
        "another --{}",
    ),
    (
        "another --subnet than before",
        "integration/test_network.py:test_subnet",
        "using the bridge {} → its address is {} → destroy the instances on it, before you "
        "start the "
        "manager with another --{}",
    ),
    (
        "all addresses are taken",
        "network/test_network.py:test_lowest_free_address",
        "finding an address → all of {} are taken → destroy some instances, or start the manager "
        "with a larger --subnet",
    ),
    (
        "a port beyond a host that does not forward",
        "integration/test_network.py:test_no_forwarding",
        "publishing port {} → the host does not forward packets → sysctl net.ipv4.ip_forward=1, or "
        "publish it on 127.0.0.1",
    ),
    (
        "a port of IPv6 without a subnet of it",
        "network/test_network.py:test_no_ipv6",
        "publishing port {} → private containers have no addresses of IPv6 here → publish it at an "
        "IPv4 address, or see what docs/network.md says of --subnet6",
    ),
    (
        "a port of IPv6 on a host that does not forward it",
        "network/test_network.py:test_no_forwarding",
        "publishing port {} → the host does not forward packets of IPv6 → "
        "sysctl net.ipv6.conf.all.forwarding=1",
    ),
    (
        "no secret on standard input",
        "cli/test_secrets.py:test_no_secret",
        "A secret has 1 to {} bytes: send it to standard input.",
    ),
    (
        "a secret with a bad name",
        "api/test_secrets.py:test_refused",
        "the name of a secret is up to 63 letters, digits, '.', '_' and '-'",
    ),
    ("a long secret", "api/test_secrets.py:test_refused", "a secret has up to {} bytes"),
    ("an empty secret", "api/test_secrets.py:test_refused", "the secret is empty"),
    (
        "a secret that is removed while it is used",
        "engine/test_secrets.py:test_in_use",
        "the secret {} is in use → by {} → destroy them",
    ),
    (
        "no room for a secret",
        "engine/test_secrets.py:test_disk_full",
        "keeping the secret {} → {}",
    ),
    (
        "a secret that can't be removed",
        "engine/test_secrets.py:test_can_not_be_removed",
        "removing the secret {} → {}",
    ),
    (
        "a secret that is not there",
        "engine/test_secrets.py:test_missing",
        "there is no secret {} → `txcontain secrets` shows those there are",
    ),
    (
        "a launch of a config whose secret is not there",
        "engine/test_secrets.py:test_refused",
        "there is no secret {} → set it: `txcontain secrets set {}`",
    ),
    (
        "a config to be removed that is not there",
        "engine/test_launching.py:test_in_use",
        "there is no config {} → `txcontain configs` shows those there are",
    ),
    (
        "exec without a command",
        "cli/test_exec.py:test_no_command",
        "Say what to run in it: txcontain exec INSTANCE COMMAND...",
    ),
    (
        "a step of a launch that is over",
        "integration/test_steps.py:test_refused",
        "there is no such launch to step through → it has ended, or its client has gone: begin"
        " again",
    ),
    (
        "a step after the client has hung up",
        "integration/test_steps.py:test_gone_with_its_client",
        "stepping through a launch → it is over → begin again",
    ),
    (
        "a step that lies behind",
        "integration/test_steps.py:test_refused",
        "the next step can be one from {} to {}, not {}",
    ),
    (
        "one launch in steps too many",
        "integration/test_steps.py:test_bounded",
        "{} launches are stepped through already → end one of them",
    ),
    (
        "a launch in steps for a connection",
        "integration/test_steps.py:test_refused",
        'no connection is there for a launch in steps → have no "per_connection" in the config',
    ),
    (
        "an escape, and the manager leaves out no wall",
        "integration/test_steps.py:test_refused",
        "this manager makes no container without one of its walls → start a manager of its own for"
        " that, with --allow-unsafe",
    ),
    (
        "an escape from a wall that a config does not have",
        "integration/test_escapes.py:test_each_wall",
        "this wall is not there: {} → have in the config {}",
    ),
    (
        "an escape from a wall that there is not",
        "cli/test_step.py:test_no_such_wall",
        "There is no wall {}. The walls are: {}",
    ),
    (
        "a lesson that there is not",
        "cli/test_lesson.py:test_no_such_lesson",
        "There is no lesson {}: they are 1 to {}.",
    ),
    (
        "lessons, of an installation without them",
        "cli/test_lesson.py:test_no_such_lesson",
        "The lessons are not installed: they are in docs/lessons/ of the sources.",
    ),
    (
        "the check of a lesson that does not end",
        "cli/test_lesson.py:test_run",
        "It has not ended within {} s: {}",
    ),
    (
        "until a step that is not to come",
        "cli/test_step.py:test_wrong_words",
        "No step {} is still to come: `list` shows them.",
    ),
    (
        "a shell in a launch in steps, by another user",
        "cli/test_step.py:test_shell",
        "Only root can enter it, on the manager's host.",
    ),
    (
        "an answer to step that no manager gives",
        "cli/test_step.py:test_no_sense",
        "The manager's answer makes no sense: {}",
    ),
    (
        "the timeline of a launch that has not come so far",
        "cli/test_pictures.py:test_nothing_known",
        "Nothing is known of the time of its launch: it has not come so far.",
    ),
    (
        "a comparison with a process that there is not",
        "integration/test_seeing.py:test_refused",
        "there is no process {} → compare another one",
    ),
    (
        "a comparison with a process that is not shown",
        "engine/test_inspection.py:test_a_process_that_may_not_be_seen",
        "this manager may not look at process {} → compare another one",
    ),
    (
        "a file that is not in mountables/",
        "engine/test_secrets.py:test_missing",
        "there is no file {} in {}/ → put it there, or correct the config",
    ),
    (
        "a file that is too long to be copied",
        "container/test_init.py:test_no_copy",
        "{} is longer than {} bytes → mount it in a tarball",
    ),
    (
        "a file that is removed at the last moment",
        "container/test_init.py:test_no_copy",
        "{} can't be copied → put it there again",
    ),
    (
        "a file at the place of a folder",
        "container/test_init.py:test_no_place_for_a_small_file",
        "there is a folder at {} → put the file somewhere else",
    ),
    (
        "an owner that a user namespace lacks",
        "container/test_init.py:test_no_place_for_a_small_file",
        "a user namespace has only the ids below {} → give {} another owner",
    ),
    (
        "a config that is removed while it is used",
        "engine/test_launching.py:test_in_use",
        "{} is in use → by {} → destroy them",
    ),
    (
        "a name that an instance has",
        "engine/test_launching.py:test_again",
        "there is an instance {} already → it is of {}, and {} → destroy it, or choose another "
        "name",
    ),
    (
        "a name that is drawn for the next launch",
        "engine/test_launching.py:test_prepared",
        "the name {} is in use → choose another name",
    ),
    (
        "a major that there is none of",
        "engine/test_store.py:test_newest",
        "there is no config {} with the major version {} → upload it first",
    ),
    (
        "a name that differs in its case only",
        "network/test_network.py:test_names_without_case",
        "the name {} is taken on the private network → {} is found by it, as small and capital "
        "letters are the same there → rename the config, or give the instance another name",
    ),
    (
        "a port of another service, or of an instance",
        "network/test_network.py:test_taken",
        "port {} is taken → {} publishes it",
    ),
    (
        "the kernel does not tell its connections",
        "network/test_network.py:test_flows",
        "counting the connections to {} → {}",
    ),
    (
        "destroyed while its link is made",
        "network/test_network.py:test_destroyed_meanwhile",
        "making a link → the instance was destroyed meanwhile",
    ),
    (
        "the machine is overloaded",
        "runtime/test_pool.py:test_too_slow",
        "starting a container's init → it has not connected within {} s → check whether this "
        "machine "
        "is overloaded",
    ),
    (
        "the machine has no process left",
        "runtime/test_pool.py:test_can_not_spawn",
        "starting a container's init → {}",
    ),
    (
        "an init is killed",
        "runtime/test_instance.py:test_init_dies_half_way",
        "carrying out the plan → the init was killed half-way",
    ),
    (
        "an init is killed while it prepares",
        "runtime/test_pool.py:test_ends_while_it_prepares",
        "preparing a container's init → it ended half-way",
    ),
    (
        "an init is killed when it is taken",
        "runtime/test_pool.py:test_hangs_up_when_taken",
        "carrying out the plan → the init has ended",
    ),
    (
        "the monitor's words can't be read",
        "runtime/test_supervised.py:test_exit_can_not_be_read",
        "ended, but its exit can't be read: {}",
    ),
    (
        "something is in the way of the start",
        "test_tap.py:test_something_in_the_way",
        "the manager can't start: {}",
    ),
    (
        "a launch while the manager ends",
        "runtime/test_pool.py:test_no_more",
        "starting a container's init → the manager ends",
    ),
    (
        "no namespace can be made",
        "runtime/test_supervised.py:test_never_connects",
        "making the container's namespaces → its init ended before it connected: {} → the manager "
        "must run as root, on Linux 5.12 or later, with namespaces allowed",
    ),
    (
        "no descriptor is left",
        "runtime/test_supervised.py:test_dead_when_it_is_heard",
        "taking note of a container's init → {}",
    ),
    (
        "too many names of images",
        "engine/test_images.py:test_too_many",
        "images have {} names already → remove some",
    ),
    (
        "too many stacks",
        "services/test_asking.py:test_too_many",
        "there are {} stacks already → take one down",
    ),
    (
        "a stack that is being taken down",
        "services/test_asking.py:test_going_down",
        "the stack {} is being taken down → try again when it is gone",
    ),
    (
        "more instances of a job",
        "services/test_asking.py:test_jobs",
        "{} has no replicas: it is to end by itself",
    ),
    (
        "a rollback of a job",
        "services/test_asking.py:test_jobs",
        "{} can't be rolled back: it is to end by itself → what it has done stays done; "
        "update it to the version that is to run",
    ),
    (
        "a rollback to nothing",
        "services/test_asking.py:test_nothing_before",
        "{} can't be rolled back → no other revision of {} has been good since its first one",
    ),
    (
        "a name of two services",
        "services/test_asking.py:test_names",
        "{} services are called {} → name one of them: {}",
    ),
    (
        "two changes at the same time",
        "services/test_asking.py:test_meanwhile",
        "the stack {} was changed meanwhile → look at what has changed, and try again",
    ),
    (
        "two services of one full name",
        "services/test_asking.py:test_beside_others",
        "{}: a service of the stack {} has the same full name → give one of them another name",
    ),
    (
        "a port of another stack",
        "services/test_asking.py:test_beside_others",
        "{}.ports: the service {} publishes port {}",
    ),
    (
        "a stack that there is not",
        "services/test_asking.py:test_unknown",
        "there is no stack {} → did you mean {}?",
    ),
    (
        "a service that there is not",
        "services/test_asking.py:test_unknown",
        "there is no service {} → did you mean {}?",
    ),
    (
        "a stack that can't be kept",
        "services/test_asking.py:test_full_disk",
        "keeping the stack {} → {}",
    ),
    (
        "a stack whose file can't be removed",
        "services/test_asking.py:test_full_disk",
        "removing the stack {} → {}",
    ),
    (
        "a stack's file that is not there",
        "cli/test_services.py:test_no_file",
        "The stack {} can't be read: {}.",
    ),
    (
        "a manager that ends during an update",
        "cli/test_services.py:test_cut_short",
        "The manager has ended before this was done. The next one goes on with it: "
        "`txcontain services` shows how far it is.",
    ),
    (
        "a manager that ends while a command of `run` is attended",
        "cli/test_run.py:test_hung_up",
        "The manager has ended, and NAME may run on: if there is another manager, "
        "`txcontain logs -f NAME` shows what it writes.",
    ),
    (
        "a number for a service, and another",
        "cli/test_services.py:test_twice",
        "app is named twice: give it one number.",
    ),
    (
        "a name that no service has",
        "cli/test_services.py:test_wrong_words",
        "a name is letters, digits, '_' and '-', not {}: `txcontain services` shows them",
    ),
    (
        "no number of instances",
        "cli/test_services.py:test_wrong_words",
        "write SERVICE=N, not {}",
    ),
    (
        "another manager has this state",
        "test_tap.py:test_one_alone",
        "another manager, process {}, uses {}: give another --state",
    ),
)


class Texts(SynchronousTestCase):
    """What a row's text is compared with."""

    maxDiff = None

    def compare(self, table: Any, answer: Any) -> None:
        """Fail unless each row of a table is answered with its text."""
        for *done, text in table:
            self.assertEqual(answer(*done), text, done)


class ConfigTests(Texts):
    """What is said of a config."""

    def test_configs(self) -> None:
        """Each config is refused with its text."""
        self.compare(CONFIGS, self.refused)

    def refused(self, changes: Any) -> Any:
        """Why a config is refused."""
        whole = changes if isinstance(changes, bytes) else document(**changes)
        return str(self.assertRaises(Error, from_json, whole))

    def test_launches(self) -> None:
        """Each launch is refused with its text."""
        self.compare(
            LAUNCHES,
            lambda asked: str(
                self.assertRaises(Error, read_launch_request, read_object(asked.encode()))
            ),
        )


class StackTests(Texts):
    """What is said of a stack."""

    def test_stacks(self) -> None:
        """Each stack is refused with its text."""
        self.compare(STACKS, self.refused)

    def refused(self, changes: Any, service: Any) -> Any:
        """Why a stack is refused."""
        others = {n: {"config": "db-1-01", **v} for n, v in changes.items() if n in ("b", "A")}
        services = {"a": {"config": "web-1-01", **service}, **others}
        stack = {"stack": "s", "services": services}
        stack |= {key: value for key, value in changes.items() if key not in others}
        given = {key: value for key, value in stack.items() if value is not None}
        return str(self.assertRaises(Error, read_stack, given))

    def test_revisions(self) -> None:
        """Each service that does not fit its config is refused with its text."""
        self.compare(REVISIONS, self.misfits)

    def misfits(self, service: Any, config: Any) -> Any:
        """Why a service and its config don't fit together."""
        asked = {"config": "web-1-01", **service}
        return str(self.assertRaises(Error, make_revision, "a", asked, document(**config)))


class RequestTests(HostileCase, Texts):
    """What is said of a request."""

    def test_requests(self) -> None:
        """Each request is answered with its status and text."""
        self.compare(REQUESTS, self.answered)

    def answered(self, asked: Any, options: Any) -> Any:
        """The status and reason of the last answer to a request."""
        self.site.access.caller = lambda *_: options.get("caller", Caller("loopback"))
        body = options.get("body", "")
        headers = options.get("host", f"Host: localhost\r\nContent-Length: {len(body)}")
        request = f"{asked} HTTP/1.1\r\n{headers}\r\n\r\n{body}".encode()
        for _ in range(options.get("connections", 0)):
            self.connect()
        if options.get("twice"):
            self.send(request)
        connection, transport = self.connect()
        running = mock.Mock(return_value=[], side_effect=options.get("raises"))
        with mock.patch.object(Manager, "running", running):
            connection.dataReceived(request)
        self.reactor.advance(options.get("seconds", 0))
        self.hang_up(connection)
        self.flushLoggedErrors(ZeroDivisionError, OSError)
        head, _, body = transport.value().decode().rpartition("HTTP/1.1 ")[2].partition("\r\n\r\n")
        reason = re.search("^Txcontain-Reason: (.*)$", head.replace("\r", ""), re.M | re.I)
        status = head.partition("\r\n")[0]
        return f"{status}: {unquote(reason[1])}" if reason else status


class CommandTests(Session, Texts):
    """What the CLI says."""

    def test_commands(self) -> None:
        """Each command line is answered with its text, on stderr."""
        self.patch(connect, "UNIT", Path("/no/unit"))
        self.patch(connect, "CHECKOUT", Path("/no/checkout"))
        self.compare(COMMANDS, self.said)

    def said(self, words: list[str], given: Any) -> Any:
        """What is said of a command line, without the usage that argparse shows before it."""
        self.manager.answers_to("GET /list", given.get("answer", b""))
        self.http = StubTreq(self.manager)
        if "error" in given:
            self.http = HTTPClient(cast(Any, Broken(given["error"])))
        self.stderr.truncate(0)
        self.stderr.seek(0)
        try:
            arguments = main.parse(words, given)
        except SystemExit:
            return re.sub(r"(?s)^.*?(?=txcontain[\w ]*: error)", "", self.err).strip()
        files = {name: getattr(arguments, name) for name in main.FILES}
        try:
            connect.way_to(arguments.url, self.clock, arguments.token, **files)
        except CliError as trouble:
            return str(trouble)
        client = Client(arguments.url, self.http, self.clock)
        status = Deferred.fromCoroutine(main.carry_out(client, arguments))
        self.clock.advance(QUICK)
        self.successResultOf(status)
        return self.err.strip()


class OptionTests(Texts):
    """What the manager says of its options."""

    def test_options(self) -> None:
        """Each option is refused with its text."""
        self.compare(OPTIONS, self.refused)

    def refused(self, words: str) -> Any:
        """Why a command line is refused."""
        path = f"{os.getcwd()}/"
        error = self.assertRaises(UsageError, Options().parseOptions, words.split())
        return str(error).replace(path, "")


class CallTests(ManagerTestCase, Texts):
    """What else is said."""

    def test_calls(self) -> None:
        """Each call fails with its text."""
        self.compare(CALLS, self.failed)

    def failed(self, _: Any, call: Any) -> Any:
        """Why a call fails: it returns the error, or a coroutine, or raises."""
        self.setUp()  # no row sees what another has done
        try:
            outcome = call(self)
            if not isinstance(outcome, Error):
                outcome = self.failureResultOf(self.start(outcome)).value
        except (Error, ValueError) as error:
            outcome = error
        said = str(outcome).replace(self.folder, "FOLDER")
        return re.sub("(web|pg)-([0-9a-f]{8}){1,2}", r"\1-ID", said)

    def keep(self, **changes: Any) -> Any:
        """Keep a config; return what a launch of it takes."""
        spec = self.add(**changes)
        return spec.name, spec.major, spec.minor

    def test_errnos(self) -> None:
        """Each errno of which more is known than its name has its text."""
        self.assertEqual(set(ERRNOS), set(CAUSES))
        self.compare(ERRNOS.items(), self.cause_of)

    def cause_of(self, number: int) -> Any:
        """What is said of an errno, beside its name."""
        return " → ".join(step(0, "mount", number)(self).chain[3:])


class CompletenessTests(SynchronousTestCase):
    """Nothing is left out."""

    def test_nothing_is_left_out(self) -> None:
        """Each text of an error in the sources is in a row."""
        tables = (
            *(CONFIGS, LAUNCHES, STACKS, REVISIONS, REQUESTS, COMMANDS, OPTIONS, CALLS),
            *(ERRNOS.items(), ELSEWHERE),
            *(OF_IMAGES, OF_REFERENCES, OF_ARCHIVES, OF_REGISTRIES),
        )
        said = "\n".join(row[-1] for table in tables for row in table)
        missing = [
            f"{path.name}:{line}: {text}"
            for path in SOURCES
            for line, text in texts_of_errors(path)
            if not re.search(pattern(text), said)
        ]
        self.assertEqual(missing, [], "texts without a row in this module, see its docstring")

    def test_elsewhere(self) -> None:
        """What is provoked elsewhere is what the sources say, and the test of it is there."""
        there = [text for path in SOURCES for _, text in texts_of_errors(path)]
        for _, test, said in ELSEWHERE:
            known = any(re.search(pattern(text), said) for text in there)
            self.assertTrue(known, f"no source says: {said}")
            module, name = test.split(":")
            self.assertIn(f"def {name}(", (PROJECT / "tests" / module).read_text(), test)


SOURCES = sorted(PROJECT.glob("txcontain/**/*.py"))
# What is called with the text of an error.
SPEAKERS = {kind.__name__ for kind in (Error, *all_errors())} | {
    "refuse",
    "UsageError",
    "CliError",
    "HungUp",
    "Misused",
    "ArgumentTypeError",
    "exit",
    "StepError",
    "canned",
}
STATUS_LINE = re.compile("[1-5][0-9][0-9] [A-Z]")


def texts_of_errors(path: Any) -> Iterator[Any]:
    """The line and text of each argument of SPEAKERS in a file, `{}` for what varies in it."""
    tree = ast.parse(path.read_text())
    named: dict[Any, Any] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            named.setdefault(node.targets[0].id, []).extend(texts(node.value))
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = node.func
            if getattr(called, "id", "") == "partial":
                called = node.args[0]
            name = getattr(called, "attr", getattr(called, "id", ""))
            for argument in node.args if name in SPEAKERS else ():
                constant = argument.id if isinstance(argument, ast.Name) else None
                for text in named.get(constant, []) if constant else texts(argument):
                    if " " in text.strip("{} ") and not STATUS_LINE.match(text):
                        yield node.lineno, text
        if isinstance(node, ast.Return) and isinstance(node.value, ast.Tuple):  # cause and hint
            found = [text for part in node.value.elts for text in texts(part)]
            if len(found) == len(node.value.elts):
                yield from ((node.lineno, text) for text in found if " " in text.strip("{} "))


def texts(node: Any) -> Iterator[Any]:
    """The texts that an expression may be, as far as it says."""
    match node:
        case ast.Constant(value=str(text)):
            yield text
        case ast.JoinedStr(values=parts):
            yield "".join(
                str(part.value) if isinstance(part, ast.Constant) else "{}" for part in parts
            )
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            for one in texts(left):
                yield from (one + other for other in [*texts(right)] or ["{}"])
        case ast.IfExp(body=one, orelse=other):
            yield from [*texts(one), *texts(other)]
        case ast.BoolOp(values=values):
            yield from (text for value in values for text in texts(value))


def pattern(text: str) -> Any:
    """A regular expression for a text with `{}` in it."""
    return ".*".join(map(re.escape, text.split("{}")))
