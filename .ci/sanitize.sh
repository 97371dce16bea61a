#!/usr/bin/env bash
# The tests of the CPU kernel with a library built under AddressSanitizer and UndefinedBehaviorSanitizer.
set -euo pipefail
python=$(realpath -s "$1")
root=$(pwd)
compiler=${CXX:-g++}
if ! command -v "$compiler" >/dev/null; then
  echo "SKIPPED: no $compiler, the CPU kernel was not run under the sanitizers"
  exit 0
fi
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
cp -r torch_bgdebias csrc tests setup.py pyproject.toml "$out"
for file in README.md LICENSE NOTICE; do if [ -e "$file" ]; then cp "$file" "$out"; fi; done
cd "$out"
rm -f torch_bgdebias/*.so
flags="-fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer -g -O1"
CXX="$compiler" CXXFLAGS="$flags" TORCH_BGDEBIAS_BUILD=cpu "$python" setup.py -q build_ext --inplace
# The interpreter itself is not instrumented: its runtime comes first, and leaks at exit are Python's own.
LD_PRELOAD="$("$compiler" -print-file-name=libasan.so) $("$compiler" -print-file-name=libstdc++.so)" \
  ASAN_OPTIONS=detect_leaks=0:abort_on_error=1 UBSAN_OPTIONS=print_stacktrace=1 OMP_NUM_THREADS=2 \
  "$python" -m pytest -q --no-header -p no:cacheprovider tests/ops/test_plain.py tests/ops/test_composite.py \
  -W error::RuntimeWarning -rs | tee "$out/log"
if grep -q "no compiled kernels" "$out/log"; then
  echo "FAILED: the sanitized library was not loaded (see above)"
  exit 1
fi
echo "sanitized library of $root: tests passed"
