#!/bin/sh
# Starts tiny on $PORT and stays as its parent until it ends.

cd "$(dirname "$0")" || exit
./tiny "${PORT:?is not set, and says where to listen}" &
server=$!
trap 'kill "$server"' TERM INT

# wait also returns when a signal comes in: tiny may still be at its last answers.
while
    wait "$server"
    status=$?
    kill -0 "$server" 2>/dev/null
do :; done
exit "$status"
