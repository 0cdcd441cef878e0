# The monitor: parent of one container's PID 1, outside of the container. It waits for its
# end and writes it down, whether or not a manager runs then: the file `exit` gets the
# shell's own words, such as "[1] + Done(3)" or "[1] + Killed".
# (`$?` would not do: it is 137 both for `exit 137` and for SIGKILL.)
# It is a shell because every host has one, and nothing is smaller: 0.2 MB.
# bash has forgotten these words after `wait`, but it reports a signal, and knows the status.
# Arguments: the file by which it leaves the manager's cgroup, all of which may be killed; the
# folder for `exit`; how many files a process may open, soft and hard limit (the manager has
# raised its own); then the command that becomes PID 1.
trap '' HUP INT QUIT TERM
echo 0 > "$1"
cd "$2" || exit
ulimit -S -n "$3"
ulimit -H -n "$4"
shift 4
# Reserve room for the words: by then the disk may be full.
printf '%200s\n' > exit
# Keep the pipes of its output open: otherwise they break if the log process is killed.
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
