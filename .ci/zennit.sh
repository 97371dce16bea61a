#!/bin/sh
# The LRP tests with the oldest and the newest zennit. Release 1.0.0 asks for Python >= 3.11.11 but runs on 3.11 too.
# Usage: .ci/zennit.sh [python]
set -eu
python=${1:-python}
for version in 0.5.1 1.0.0; do
    target=$(mktemp -d)
    "$python" -m pip install --quiet --no-deps --ignore-requires-python --target "$target" "zennit==$version"
    PYTHONPATH=$target "$python" -m pytest tests/lrp tests/isnet/test_wrapper.py -q -p no:cacheprovider
    rm -r "$target"
done
