#!/usr/bin/env bash
# The CUDA kernel without a card: compiled as C++, compared with the plain kernel bit by bit, and mistakes in it caught.
set -euo pipefail
python=$(realpath -s "$1")
if ! command -v "${CXX:-c++}" >/dev/null && ! command -v g++ >/dev/null; then
  echo "SKIPPED: no C++ compiler, the CUDA kernel was not run on the host"
  exit 0
fi
"$python" -m pytest -q --no-header -p no:cacheprovider --runslow tests/ops/cuda_host -rs
