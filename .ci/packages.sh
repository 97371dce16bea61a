#!/usr/bin/env bash
# The callbacks' table with the oldest minor release of `lightning` that is supported, alone; with `--all` also beside
# pytorch_lightning, and each package alone in either release: .ci/packages.sh PYTHON [--all]. What is not installed
# goes to a folder of its own, never to the environment. The releases that are installed are tested by `make test`.
set -euo pipefail
python=$(realpath -s "$1")
cd "$(dirname "$0")/.."
export OMP_NUM_THREADS=1
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

table() {  # WITHOUT, folder of packages that come first
  WITHOUT=$1 PYTHONPATH="$2:$PWD:$PWD/tests/helpers" "$python" -m pytest -q -n 0 -p without_packages -p no:cacheprovider \
    -W ignore tests/callbacks/test_table.py tests/callbacks/test_contract.py tests/callbacks/test_hidden_masks.py
}

"$python" -m pip install --quiet --no-deps --target "$out/lightning" "lightning>=2.5,<2.6"
PYTHONPATH="$out/lightning" "$python" -W ignore -c \
  'import lightning; assert lightning.__version__.startswith("2.5"), lightning.__version__'
echo "== lightning 2.5 alone"; table pytorch_lightning "$out/lightning"
[ "${2:-}" = --all ] || exit 0
"$python" -m pip install --quiet --no-deps --target "$out/pytorch-lightning" "pytorch-lightning>=2.5,<2.6"
echo "== pytorch_lightning 2.5 alone";           table lightning "$out/pytorch-lightning"
echo "== lightning as installed, alone";         table pytorch_lightning ""
echo "== pytorch_lightning as installed, alone"; table lightning ""
echo "== lightning 2.5 beside pytorch_lightning as installed"; table "" "$out/lightning"
