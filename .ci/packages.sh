#!/usr/bin/env bash
# The callbacks' table with the oldest minor release that is supported of `lightning` alone and of `pytorch_lightning`
# alone: .ci/packages.sh PYTHON [--all]. `--all` adds each package as installed, alone, and the old one beside the new.
# What is not installed goes to a folder of its own, never to the environment: torch and all else are those installed.
set -euo pipefail
python=$(realpath -s "$1")
cd "$(dirname "$0")/.."
export OMP_NUM_THREADS=1
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

old() {  # NAME of the distribution, its MODULE: its oldest supported minor release, in $out/NAME
  "$python" -m pip install --quiet --no-deps --target "$out/$1" "$1>=2.5,<2.6"
  PYTHONPATH="$out/$1" "$python" -W ignore -c "import $2; assert $2.__version__.startswith('2.5.'), $2.__version__"
}

table() {  # WITHOUT, folder of packages that come first
  WITHOUT=$1 PYTHONPATH="$2:$PWD:$PWD/tests/helpers" "$python" -m pytest -q -n 0 -p without_packages -p no:cacheprovider \
    -W ignore tests/callbacks/test_table.py tests/callbacks/test_contract.py tests/callbacks/test_hidden_masks.py
}

old lightning lightning
echo "== lightning 2.5 alone"; table pytorch_lightning "$out/lightning"
old pytorch-lightning pytorch_lightning
echo "== pytorch_lightning 2.5 alone"; table lightning "$out/pytorch-lightning"
[ "${2:-}" = --all ] || exit 0
echo "== lightning as installed, alone";         table pytorch_lightning ""
echo "== pytorch_lightning as installed, alone"; table lightning ""
echo "== lightning 2.5 beside pytorch_lightning as installed"; table "" "$out/lightning"
