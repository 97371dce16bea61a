#!/usr/bin/env bash
# The packages that a machine with torch alone lacks, as wheels for CPython 3.12 on Linux, to be carried there.
set -euo pipefail
python=$(realpath -s "$1")
folder=${2:-build/wheels}
mkdir -p "$folder"
"$python" -m pip download --quiet --no-deps --only-binary=:all: --implementation cp --python-version 3.12 --abi cp312 --abi abi3 \
  --abi none --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 --dest "$folder" \
  kornia kornia_rs "zennit==0.5.*" captum timm "torchvision==0.26.*" pytorch-lightning lightning lightning-utilities torchmetrics \
  jsonargparse docstring-parser typeshed-client typing-extensions importlib-resources pytest pluggy iniconfig hypothesis sortedcontainers \
  "setuptools<82" pillow packaging pyyaml tqdm
size=$(du -sm "$folder" | cut -f1)
echo "$folder: $(ls "$folder" | wc -l) wheels, $size MiB"
test "$size" -lt 64
