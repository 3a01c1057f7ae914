#!/usr/bin/env bash
# Trains on this host of a slice, and starts again for as long as that helps. Run it on all hosts with the same flags.
# usage: launch/keep_training.sh --workdir=DIR --gin_file=FILE ...   (the flags of `terraformer train`)
set -uo pipefail
pause=${PAUSE:-10}  # seconds, so that all hosts have noticed before one comes back
child=
stopping=
trap 'stopping=yes; [[ -n $child ]] && kill -TERM "$child"' TERM INT
while true; do
  terraformer train "$@" &
  child=$!
  # A signal ends `wait` early; the child then still has to save.
  wait "$child"
  status=$?
  while kill -0 "$child" 2>/dev/null; do
    wait "$child"
    status=$?
  done
  case $status in
    0 | 1 | 2 | 130) exit "$status" ;;  # done, diverged, bad input, Ctrl-C: the same again would not help
  esac
  [[ -n $stopping ]] && exit "$status"
  echo "keep_training: exit status $status, starting again in $pause s" >&2
  sleep "$pause"
done
