#!/usr/bin/env bash
# Builds the library with a sanitizer (address and undefined behaviour, or thread) and runs test.cc: run.sh [address|thread]
# The code for AVX-512 is the same source, for which GCC takes minutes with a sanitizer: WITH_AVX512=1 for that as well.
set -euo pipefail
cd "$(dirname "$0")/../../.."
sources=terraformer/native/csrc
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
if [ $# = 0 ]; then set -- address thread; fi
for sanitizer; do
  flags="-std=gnu++17 -O1 -g -fno-omit-frame-pointer -ffp-contract=off -Wno-maybe-uninitialized -fsanitize=$sanitizer"
  if [ "$sanitizer" = address ]; then flags+=,undefined; fi
  flags+=" -fno-sanitize-recover=all"
  if [ -z "${WITH_AVX512:-}" ]; then flags+=" -DNATIVE_WITHOUT_AVX512"; fi
  avx2="-mavx2 -mfma" avx512="-mavx2 -mfma -mavx512f -mavx512bw -mavx512dq -mavx512vl"
  objects=()
  compile() { # object, source, flags
    ${CXX:-g++} $flags "${@:3}" -c "$2" -o "$folder/$sanitizer-$1.o"
    objects+=("$folder/$sanitizer-$1.o")
  }
  compile portable $sources/run.cc -DNATIVE_VARIANT=portable
  if [ "$(uname -m)" = x86_64 ]; then
    compile avx2 $sources/run.cc -DNATIVE_VARIANT=avx2 $avx2
    if [ -n "${WITH_AVX512:-}" ]; then
      compile avx512 $sources/run.cc -DNATIVE_VARIANT=avx512 $avx512
      compile avx512vnni $sources/run.cc -DNATIVE_VARIANT=avx512vnni $avx512 -mavx512vnni
    fi
  fi
  for file in model plan pool variants; do compile $file $sources/$file.cc; done
  compile test tests/native/sanitized/test.cc
  ${CXX:-g++} $flags "${objects[@]}" -lpthread -o "$folder/$sanitizer-test"
  echo "$sanitizer"
  "$folder/$sanitizer-test"
done
