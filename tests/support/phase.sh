#!/usr/bin/env bash
# Run a command and say how long it took: phase.sh NAME COMMAND...
# The line is also added to the file that PHASES names, if it names one.
set -uo pipefail
name=$1
shift
began=$SECONDS
"$@"
code=$?
line="phase $name: $((SECONDS - began)) s"
((code == 0)) || line+=", exit code $code"
echo "$line"
[[ -z ${PHASES:-} ]] || echo "$line" >>"$PHASES"
exit "$code"
