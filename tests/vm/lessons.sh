#!/bin/bash
# Proves on a machine of its own (systemd, cgroup v2, an old kernel) that the lessons are true there,
# too, and that what `explain` prints makes the same containers. As root, in a checkout with its
# dependencies; PYTHON is the Python that has them. PATIENCE is how many seconds each wait may
# take, as an emulated machine is slow.

set -euo pipefail
cd "$(dirname "$0")/../.."
"${PYTHON:-.venv/bin/python}" -m twisted.trial tests.lessons tests.integration.test_by_hand \
    tests.integration.test_exec.ExplainTests
