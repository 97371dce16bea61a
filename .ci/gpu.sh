#!/usr/bin/env bash
# Everything that needs a card, on a machine with Python 3.12, torch and CUDA: missing packages come from wheels that
# .ci/gpu_wheels.sh gathered, nothing is fetched. Figures are written to benchmarks/results, and to $OUT where there is one.
set -uo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
wheels=${WHEELS:-build/wheels}
site=$(mktemp -d)
trap 'rm -rf "$site"' EXIT
export MPLBACKEND=agg PYTHONUNBUFFERED=1
if [ -z "${CUDA_HOME:-}" ] && [ -x /usr/local/cuda/bin/nvcc ]; then export CUDA_HOME=/usr/local/cuda; fi
export TORCH_CUDA_ARCH_LIST=${TORCH_CUDA_ARCH_LIST:-9.0}
"$python" - "$wheels" "$site" <<'PY'
import importlib.util
import pathlib
import sys
import zipfile

modules = {"pytorch-lightning": "pytorch_lightning", "pillow": "PIL", "typing-extensions": "typing_extensions"}
for wheel in sorted(pathlib.Path(sys.argv[1]).glob("*.whl")):
    name = wheel.name.split("-")[0]
    if importlib.util.find_spec(modules.get(name, name)) is None:
        zipfile.ZipFile(wheel).extractall(sys.argv[2])
        print("from its wheel:", wheel.name)
PY
export PYTHONPATH="$site${PYTHONPATH:+:$PYTHONPATH}"
"$python" benchmarks/gpu.py "$@"
code=$?
if [ -n "${OUT:-}" ]; then cp benchmarks/results/gpu-*.json "$OUT"/ || true; fi
exit $code
