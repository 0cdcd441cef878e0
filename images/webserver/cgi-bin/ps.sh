#!/bin/sh
# Shows the processes that can be seen from here: in a container, its own.

printf 'Content-Type: text/plain\r\n\r\n'
ps ax ww -o pid,user,args
