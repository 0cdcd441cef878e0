#!/bin/bash
# The unit runs this whenever the service has stopped.

# Containers outlive the manager, but not the machine: when that goes down, they get
# some seconds to end. (Otherwise those that ignore SIGTERM would hold it up for long.)
# The next manager sees that they ended with this boot, and starts again what should be.

set -euo pipefail

# In cgroups of version 2, and of version 1.
members() { cat /sys/fs/cgroup{,/*}/txcontain/*/[0-9a-f]*/cgroup.procs 2>/dev/null | sort -u; }

tell() { members | xargs --no-run-if-empty kill -s "$1" 2>/dev/null || true; }

# SigCgt of proc_pid_status(5): SIGTERM is the 15th bit.
some_catch_it() {
    [ -n "$(members | sed 's|.*|/proc/&/status|' | xargs --no-run-if-empty cat 2>/dev/null |
        grep '^SigCgt:.*[4-7c-f]...$')" ]
}

[ "$(systemctl is-system-running)" = stopping ] || exit 0
tell TERM
for _ in {1..50}; do
    some_catch_it || break
    sleep 0.1
done
tell KILL
