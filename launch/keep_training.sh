#!/usr/bin/env bash
# Trains on this host of a slice, and starts again for as long as that helps. Run it on all hosts with the same flags.
# usage: launch/keep_training.sh --workdir=DIR --gin_file=FILE ...   (the flags of `terraformer train`)
set -uo pipefail
pause=${PAUSE:-10}   # seconds, so that all hosts have noticed before one comes back
short=${SHORT:-600}  # seconds: a run that ends sooner has not got far
most=10              # such runs in a row
child=
stopping=
failures=0
trap 'stopping=yes; [[ -n $child ]] && kill -TERM "$child" 2>/dev/null' TERM INT
while true; do
  begun=$SECONDS
  terraformer train "$@" &
  child=$!
  [[ -n $stopping ]] && kill -TERM "$child"  # it came before there was a child
  # A signal ends `wait` early; the child then still has to save.
  wait "$child"
  status=$?
  while kill -0 "$child" 2>/dev/null; do
    wait "$child"
    status=$?
  done
  child=
  case $status in
    0 | 2 | 3 | 130) exit "$status" ;;  # done, bad input, diverged, Ctrl-C: the same again would not help
  esac
  failures=$((SECONDS - begun < short ? failures + 1 : 0))
  if ((failures >= most)); then
    echo "keep_training: exit status $status, the ${most}th in a row within $short s; giving up" >&2
    exit "$status"
  fi
  if [[ -z $stopping ]]; then
    echo "keep_training: exit status $status, starting again in $pause s" >&2
    sleep "$pause" &
    wait $!
  fi
  [[ -n $stopping ]] && exit "$status"
done
