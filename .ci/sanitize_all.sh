#!/usr/bin/env bash
# The CPU kernel on drawn bytes, against the formula: under ThreadSanitizer, and under AddressSanitizer with UBSan; by libFuzzer
# where there is a clang, else with a driver of its own. Then the tests with the sanitized library (.ci/sanitize.sh).
set -euo pipefail
python=$(realpath -s "$1")
inputs=${INPUTS:-20000}
seconds=${SECONDS_OF_FUZZING:-120}
compiler=${CXX:-$(command -v clang++ || command -v g++ || true)}
if [ -z "$compiler" ]; then
  echo "SKIPPED: no C++ compiler, nothing was run under the sanitizers"
  exit 0
fi
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
include=$("$python" -c 'import importlib.util, pathlib; print(pathlib.Path(importlib.util.find_spec("torch").origin).parent / "include")')
common=(-std=c++17 -O1 -g -ffp-contract=off -fno-omit-frame-pointer -pthread "-I$include" tests/ops/cpu_host/fuzz.cpp)
echo "compiler: $compiler"
"$compiler" -DOWN_DRIVER -DTHREADS=4 -fsanitize=thread "${common[@]}" -o "$out/threads"
TSAN_OPTIONS=halt_on_error=1 "$out/threads" "$((inputs / 10))"
"$compiler" -DOWN_DRIVER -DTHREADS=1 -fsanitize=address,undefined -fno-sanitize-recover=undefined "${common[@]}" -o "$out/memory"
"$out/memory" "$inputs"
if "$compiler" -DTHREADS=1 -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=undefined "${common[@]}" -o "$out/fuzz" 2> /dev/null; then
  mkdir "$out/corpus"
  "$out/fuzz" -max_len=60000 "-max_total_time=$seconds" "$out/corpus"
else
  echo "$compiler has no libFuzzer: drawn inputs only"
fi
if [ "${KERNEL_ONLY:-}" != yes ]; then bash .ci/sanitize.sh "$python"; fi
