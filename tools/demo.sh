#!/usr/bin/env bash
# The main job from end to end, by the commands that a user would type; a second run reuses what the first one left.
# usage: tools/demo.sh FOLDER
set -euo pipefail
cd "$(dirname "$0")/.."
folder=${1:?expected a folder}
gin=(--gin_file=gin_configs/runs/demo.gin --gin_bindings="config.DataConfig.directory = '$folder/data'")
started=$SECONDS

step() {
  printf '\n[%s/5] %s (%d:%02d so far)\n' "$1" "$2" $(((SECONDS - started) / 60)) $(((SECONDS - started) % 60))
  shift 2
  printf '$'
  printf ' %q' "$@"
  printf '\n'
  "$@"
}

step 1 'preparing the docstrings of this machine, about a minute' terraformer prepare "${gin[@]}"
step 2 'training a small Terraformer, about five minutes' terraformer train "${gin[@]}" --workdir="$folder/run"
step 3 'exporting it' terraformer export --workdir="$folder/run" --output="$folder/bundle"
step 4 'decoding with the bundle, token by token' terraformer decode --bundle="$folder/bundle" --stats \
  --input='Elements beyond the last axis are ignored. The input array is not changed; a new array with the same shape
and type is returned, in which each element is the sum of all elements before it.'
step 5 'scoring held-out examples, about half a minute' terraformer evaluate "${gin[@]}" --workdir="$folder/run"
printf '\ndone in %d:%02d; what the run was is in %s\n' $(((SECONDS - started) / 60)) $(((SECONDS - started) % 60)) \
  "$folder/run/summary.md"
