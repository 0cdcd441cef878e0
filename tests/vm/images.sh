#!/bin/bash
# Proves on a machine of its own (systemd, cgroup v2, an old kernel) what docs/images.md says of
# images with many layers: with a few, as many as no page of options has room for, the most that the
# kernel takes, and more, of which the lowest are merged. As root, in a checkout with its
# dependencies; PYTHON is the Python that has them.
# PATIENCE is how many seconds each wait may take, as an emulated machine is slow.

set -euo pipefail
cd "$(dirname "$0")/../.."
for layers in 40 130 500 520; do
    LAYERS=$layers "${PYTHON:-.venv/bin/python}" -m twisted.trial \
        tests.integration.test_images.Loads.test_many_layers \
        tests.integration.test_images.Loads.test_many_mapped
done
