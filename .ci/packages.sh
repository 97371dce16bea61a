#!/usr/bin/env bash
# The callbacks' table with one Lightning package alone, and with the oldest minor release of `lightning` that is
# supported: .ci/packages.sh PYTHON. Packages of other releases go to a folder of their own, never to the environment.
set -euo pipefail
python=$(realpath -s "$1")
cd "$(dirname "$0")/.."
export OMP_NUM_THREADS=1
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

table() {  # WITHOUT, folder of packages that come first
  WITHOUT=$1 PYTHONPATH="$2:$PWD:$PWD/tests/helpers" "$python" -m pytest -q -n 0 -p without_packages -p no:cacheprovider \
    tests/callbacks/test_table.py tests/callbacks/test_contract.py tests/callbacks/test_hidden_masks.py
}

for release in lightning pytorch-lightning; do
  "$python" -m pip install --quiet --no-deps --target "$out/$release" "$release>=2.5,<2.6"
done
PYTHONPATH="$out/lightning" "$python" -c 'import lightning; assert lightning.__version__.startswith("2.5"), lightning.__version__'
echo "== lightning 2.5 beside pytorch_lightning as installed"; table "" "$out/lightning"
echo "== lightning 2.5 alone";                                 table pytorch_lightning "$out/lightning"
echo "== pytorch_lightning 2.5 alone";                         table lightning "$out/pytorch-lightning"
echo "== lightning as installed, alone";                       table pytorch_lightning ""
echo "== pytorch_lightning as installed, alone";               table lightning ""
