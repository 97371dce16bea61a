#!/usr/bin/env bash
# Compile and link the CUDA kernel where there is a toolkit; it is run by the tests on a machine with a GPU, not here.
set -euo pipefail
python=$(realpath -s "$1")
if ! command -v nvcc >/dev/null && [ -z "${CUDA_HOME:-}" ]; then
  echo "SKIPPED: no nvcc on the PATH and no CUDA_HOME, the CUDA source was not compiled"
  exit 0
fi
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
TORCH_BGDEBIAS_BUILD=cuda "$python" setup.py -q build_ext --build-lib "$out/lib" --build-temp "$out/temp"
TORCH_BGDEBIAS_LIBRARY="$out/lib/torch_bgdebias/_C.so" "$python" - <<'PY'
import os
import torch
import torch_bgdebias.ops.library as library  # the schema alone, not the extension in place
torch.ops.load_library(os.environ["TORCH_BGDEBIAS_LIBRARY"])
keys = [key for key in ("CPU", "CUDA") if torch._C._dispatch_has_kernel_for_dispatch_key(library.NAME, key)]
assert keys == ["CPU", "CUDA"], keys
print("compiled, linked and registered for:", *keys, "| run:", "yes, by the tests" if torch.cuda.is_available() else "no, no GPU here")
PY
