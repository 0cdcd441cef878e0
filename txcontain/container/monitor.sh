# The monitor: parent of one container's PID 1, outside of the container. It waits
# for its end and writes it down, whether or not a manager runs at that time:
# `exit` then holds the shell's own words, as "[1] + Done(3)" or "[1] + Killed".
# (`$?` would not do: it is 137 for `exit 137` and for SIGKILL alike.)
# It is a shell because nothing else that every host has is as small: 0.2 MB.
# bash forgets the words when it has waited; but it complains of a signal, and says the status.
# Its arguments: the file by which it leaves the cgroup of the manager, which may be ended as a
# whole; the folder for `exit`; how many files a process may open (the manager has raised its own
# limits), at first and at most; then the command that becomes PID 1.
trap '' HUP INT QUIT TERM
echo 0 > "$1"
cd "$2" || exit
ulimit -S -n "$3"
ulimit -H -n "$4"
shift 4
# Room for the words: they must find a place even when the disk is full by then.
printf '%200s\n' > exit
# The pipes of its output, which would end with the log process if that is killed.
exec 5<> stdout 6<> stderr
if [ -z "$BASH_VERSION" ]; then
    "$@" 5>&- 6>&- &
    wait
    jobs 1<> exit
else
    exec 9>&2 2<> exit
    "$@" 2>&9 9>&- 5>&- 6>&-
    echo "+ Done($?)" >&2
fi
