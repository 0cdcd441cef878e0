#!/bin/bash
# Proves on a machine of its own (systemd, cgroup v2) what docs/service.md says of the
# service. It destroys all containers and configs: don't run it where you have some. As root:
#
#   tests/vm/service.sh first       installs the service, and leaves containers running
#   (now reboot the machine, or pull its plug)
#   tests/vm/service.sh rebooted    looks at what became of them, and uninstalls
#
# With WHEEL=FILE in the environment of both, it is the service of a wheel, without a checkout.

set -euo pipefail
cd "$(dirname "$0")/../.."
checkout=$PWD installed=$PWD/.venv
if [ -n "${WHEEL-}" ]; then # in folders of its own
    WHEEL=$(realpath "$WHEEL") installed=/opt/txcontain
    mkdir -p /srv/txcontain && cd /srv/txcontain
fi
state=/var/lib/txcontain groups=/sys/fs/cgroup/txcontain/*
failed=0

# -- looking -----------------------------------------------------------------

# expect WHAT WANTED FOUND
expect() {
    if [ "$2" = "$3" ]; then echo "ok: $1"; return; fi
    failed=1
    printf 'FAILED: %s\n  wanted: %s\n  found:  %s\n' "$1" "$2" "$3"
}

# until_so WHAT COMMAND...: it may take a while.
until_so() {
    local what=$1; shift
    for _ in $(seq 300); do
        if "$@"; then echo "ok: $what"; return; fi
        sleep 0.2
    done
    failed=1
    echo "FAILED: $what"
}

# of INSTANCE EXPRESSION: from what `inspect` says, as `i`.
of() { ask "instances/$1" | python3 -c "import json, sys; i = json.load(sys.stdin); print($2)"; }

ask() { curl --silent --show-error "localhost:8080/$1"; }
cli() { "$installed/bin/txcontain" "$@"; }
everything() {
    cli list
    for instance in $(cli list | cut -d: -f1); do of "$instance" "i['pid'], i['launched']"; done
}
answers() { ask list >/dev/null 2>&1; }
main_pid() { systemctl show --value --property MainPID txcontain; }
is() { [ "$(of "$1" "i['state']")" = "$2" ]; }
events() { # those of a kind after event number N: their instances, in order
    ask "events?since=$2" | python3 -c "
import json, sys
for event in map(json.loads, sys.stdin):
    if event['what'] == '$1':
        print(event['instance'])"
}
slots() { find "$state/run/slots" -mindepth 1 -maxdepth 1 | wc -l; }
groups() { find $groups -mindepth 1 -maxdepth 1 -type d ! -name keepers | wc -l; }
in_unit() { cat /sys/fs/cgroup/system.slice/txcontain.service/cgroup.procs; }
shows() { [ "$(curl -s "localhost:$1/$2")" = "$3" ]; }
serves() { [ "$(curl -s "localhost:$1/potato/potato.html")" = "$(cat "$checkout/images/potato/potato.html")" ]; }

# -- doing -------------------------------------------------------------------

# config NAME MORE: MORE is further keys, as JSON.
config() {
    printf '{"name": "%s", "major": "1", "minor": "0", "base_image": "basefs.tar.gz"%s}' \
        "$1" "${2:+, $2}" > /tmp/config.cfg
    cli upload /tmp/config.cfg >/dev/null
}
launch() { cli launch "$1" 1 0 | sed 's/^Success: //'; }
web() {
    echo '"mounts": ["potato.tar /webserver/potato READ"], "startup_env": "PORT='"$1"'",
          "startup_script": "/webserver/tiny.sh"'
}

# Who is there when the power is cut: a name, its policy, its port, and its state before and after. They
# are launched in this order, which is not that of their names.
fates() {
    cat <<END
unless     unless-stopped 11001 running running
failing    on-failure     11002 running running
halted     always         11003 stopped running
once       no             11004 running ended
always     always         11005 running running
resting    unless-stopped 11006 stopped stopped
kept       no             11007 stopped stopped
over       on-failure     11008 stopped stopped
END
}
# named [STATES]: their names, or of those whose line ends so
named() { fates | grep "${1-}\$" | cut -d ' ' -f 1; }

# keeper POLICY PORT: a web server that writes down its starts, on the disk at once, and its ends, which
# are left to `stop`.
keeper() {
    local script="trap 'echo bye | tee -a ends; exit' TERM; echo hello | tee -a starts;"
    script+=" cat /etc/hostname >> ../shared/starts; sync starts ../shared/starts; ../tiny.sh & wait"
    echo '"command": ["sh", "-c", "'"$script"'"], "startup_env": "PORT=80", "workdir": "/webserver/potato",
          "mounts": ["potato.tar /webserver/potato READWRITE"], "volumes": ["shared /webserver/shared"],
          "network": "private", "ports": ["'"$2"':80"], "restart": "'"$1"'", "stop_timeout": 30'
}

install() {
    if [ -z "${WHEEL-}" ]; then make install-service; return; fi
    python3 -m venv $installed
    $installed/bin/pip install --quiet "$WHEEL"
    cp -r "$checkout"/{base_images,mountables} .
    $installed/bin/twistd containerd-lite --unit > /etc/systemd/system/txcontain.service
    systemctl daemon-reload
    systemctl enable --now txcontain
}

uninstall() {
    if [ -z "${WHEEL-}" ]; then make uninstall-service; return; fi
    systemctl disable --now txcontain
    rm /etc/systemd/system/txcontain.service
    systemctl daemon-reload
}

first() {
    install
    cli destroyall
    rm -f $state/configs/*.cfg
    expect "it answers" "" "$(cli list)"
    expect "it comes with each boot" enabled "$(systemctl is-enabled txcontain)"
    expect "the state is only for root" 700 "$(stat -c %a $state)"

    for port in 10001 10002 10003; do config "web$port" "$(web $port)"; launch "web$port"; done
    config idle; launch idle
    for port in 10001 10002 10003; do until_so "port $port is served" serves $port; done

    # What the kernel says of them.
    idle=$(cli list | sed -n 's/^\(idle-.*\):.*/\1/p')
    group=$(echo $groups/"$(of "$idle" "i['slot']")") pid=$(of "$idle" "i['pid']")
    expect "it is in its cgroup" "0::${group#/sys/fs/cgroup}" "$(cat "/proc/$pid/cgroup")"
    for controller in memory pids cpu io; do
        expect "$controller is on" yes "$(grep -qw $controller "$group/cgroup.controllers" && echo yes)"
    done
    expect "a fork bomb has a bound" 1024 "$(cat "$group/pids.max")"
    expect "the group is its root, seen from inside" 0::/ \
        "$(nsenter --target "$pid" --pid --mount --cgroup cat /proc/1/cgroup)"
    expect "the unit holds only the manager" "$(main_pid)" "$(in_unit)"

    before=$(everything)
    for how in "restart txcontain" "stop txcontain" "kill --signal KILL --kill-who main txcontain" \
               "kill --signal KILL txcontain"; do
        old=$(main_pid)
        systemctl $how  # words
        if [ "$how" = "stop txcontain" ]; then
            expect "it has stopped" inactive "$(systemctl is-active txcontain || true)"
            for port in 10001 10002 10003; do until_so "port $port is served without it" serves $port; done
            systemctl start txcontain
        fi
        until_so "it answers after: $how" answers
        expect "it is another process" yes "$([ "$old" != "$(main_pid)" ] && echo yes)"
        expect "the containers have not noticed" "$before" "$(everything)"
    done
    for port in 10001 10002 10003; do until_so "port $port is served" serves $port; done
    kill -KILL "$pid"
    until_so "a later manager notices an end" is "$idle" ended
    expect "and how" "killed by SIGKILL, by someone else than this manager" "$(of "$idle" "i['exit']['reason']")"

    mkdir -p /tmp/hog && printf '#!/bin/sh\nhead -c 64M /dev/zero | tail\nexit 5\n' > /tmp/hog/hog.sh
    chmod +x /tmp/hog/hog.sh; tar cf mountables/hog.tar -C /tmp hog
    config hungry '"mounts": ["hog.tar /hog READ"], "startup_script": "/hog/hog.sh",
                   "limits": {"memory": "16M", "swap": 0}'
    hungry=$(launch hungry)
    until_so "it has eaten too much" is "$hungry" ended
    expect "and that is said" "exit status 5; 1 of its processes had been killed for want of memory" \
        "$(of "$hungry" "i['exit']['reason']")"
    rm mountables/hog.tar

    cli destroyall
    expect "nothing runs" "" "$(cli list)"
    until_so "no cgroup is left but those of warm ones" eval '[ "$(groups)" = 2 ]'
    until_so "no folder is left" eval '[ -z "$(ls -A $state/instances)" ]'

    # For after the reboot.
    while read -r name policy port _; do
        config "$name" "$(keeper "$policy" "$port")"
        cli launch "$name" --name "$name"
        until_so "$name shows what it wrote" shows "$port" potato/starts hello
    done < <(fates)
    expect "they are listed as they were launched" "$(named)" "$(cli ps -q)"
    ask events?tail=1 | python3 -c "import json, sys; print(json.load(sys.stdin)['seq'])" > $state/before-reboot
    sync  # the logs up to here; what comes now is for `stop` to keep
    for name in $(named 'stopped [a-z]*'); do
        expect "$name is stopped" "$name: stopped" "$(cli stop "$name")"
    done
}

rebooted() {
    until_so "it has come with the boot" answers
    while read -r name _ port before after; do
        until_so "$name is $after" is "$name" "$after"
        if [ "$after" = running ]; then
            until_so "$name shows that it was started again" shows "$port" potato/starts $'hello\nhello'
            expect "$name has the log of both" 2 "$(cli logs "$name" | grep -c hello)"
        else
            expect "nobody answers for $name" 000 "$(curl -sw '%{http_code}' "localhost:$port")"
            expect "$name has its log" hello "$(cli logs "$name" | grep hello)"
        fi
        if [ "$before" = stopped ]; then
            expect "$name has the last of its log" bye "$(cli logs "$name" | grep bye)"
        fi
    done < <(fates)
    expect "those that ran were started in the order of their launch, and then the others" \
        "$(named 'running running'; named 'stopped running')" "$(events starting "$(cat $state/before-reboot)")"
    expect "and are listed in this order" "$(named ' running')" "$(cli list | cut -d: -f1)"
    expect "the reboot is the reason" "ended by a reboot of the machine" "$(of once "i['exit']['reason']")"
    until_so "slots are left only of them and of warm ones" eval '[ "$(slots)" = 6 ]'
    until_so "groups too" eval '[ "$(groups)" = 6 ]'

    # What is at rest can be started by hand, if its data is whole.
    expect "what was not flushed is not taken for whole" "before all that it had written was on the disk" \
        "$(cli start once 2>&1 | grep -o 'before all that it had written was on the disk')"
    for name in $(named ' stopped'); do cli start "$name"; done
    while read -r name _ port before _; do
        if [ "$before" = stopped ]; then
            until_so "$name has what it wrote at its end" shows "$port" potato/ends bye
        fi
    done < <(fates)
    expect "the volume has what all have written" \
        "$( (named; named ' running'; named ' stopped') | sort)" "$(curl -s localhost:11001/shared/starts | sort)"

    expect "no mount of this machine is below $state" "" "$(grep " $state" /proc/self/mountinfo)"
    cli destroyall
    expect "nothing runs" "" "$(cli list)"
    cli volumes rm shared
    uninstall
    sleep 3
    expect "the unit is gone" "not-found" "$(systemctl show --value --property LoadState txcontain)"
    expect "no process is left" "" "$(pgrep -f 'monitor.sh|init.py|containerd-lite')"
    rm $state/before-reboot
}

"$1"
exit $failed
