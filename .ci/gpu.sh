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
import importlib.metadata
import importlib.util
import pathlib
import sys
import zipfile

modules = {"pillow": "PIL", "pyyaml": "yaml"}
least = {"setuptools": 77}  # reads pyproject.toml


def lacking(name: str) -> bool:
    if importlib.util.find_spec(modules.get(name, name)) is None:
        return True
    return name in least and int(importlib.metadata.version(name).split(".")[0]) < least[name]


wheels = sorted(pathlib.Path(sys.argv[1]).glob("*.whl"))
if not wheels:
    print(f"no wheels in {sys.argv[1]}: what this machine lacks stays away (make gpu-wheels gathers them elsewhere)")
for wheel in wheels:
    if lacking(wheel.name.split("-")[0].lower()):
        zipfile.ZipFile(wheel).extractall(sys.argv[2])
        print("from its wheel:", wheel.name)
PY
export PYTHONPATH="$site${PYTHONPATH:+:$PYTHONPATH}"
"$python" benchmarks/gpu.py "$@"
code=$?
if [ -n "${OUT:-}" ]; then cp benchmarks/results/gpu-*.json "$OUT"/ || true; fi
exit $code
