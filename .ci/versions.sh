#!/usr/bin/env bash
# The suite's core with the oldest and the newest torch, and with each Python that is there: in environments of their
# own, which a run makes and takes away again. What a machine does not have is said and left out.
#
#   .ci/versions.sh                     every pair below
#   .ci/versions.sh 3.12:2.6.0          one Python with one torch; "newest" is whatever the index has
set -euo pipefail
cd "$(dirname "$0")/.."

pairs=("$@")
if [ ${#pairs[@]} -eq 0 ]; then
  pairs=(3.11:2.5.1 3.11:2.9.1 3.12:2.6.0 3.12:newest 3.13:2.6.0 3.13:newest)
fi
# what rests on torch itself: kernels' plain forms, compositing, swap, CLAD, ISNet, LRP, measuring, callbacks
core=(tests/ops tests/test_compositing.py tests/test_batch.py tests/test_models.py tests/swap tests/clad
  tests/isnet/test_wrapper.py tests/lrp/test_engine.py tests/probe/test_evaluation.py tests/callbacks/test_table.py)
present=()
for path in "${core[@]}"; do [ -e "$path" ] && present+=("$path"); done

# on the path, or among pyenv's
python_of() {
  local candidate
  for candidate in "python$1" "${PYENV_ROOT:-$HOME/.pyenv}/versions/$1".*/bin/python; do
    if "$candidate" -c '' 2>/dev/null; then echo "$candidate"; return; fi
  done
  echo "python$1"
}

failed=0
for pair in "${pairs[@]}"; do
  python="$(python_of "${pair%%:*}")" torch="${pair#*:}"
  if ! "$python" -c '' 2>/dev/null; then
    echo "versions: $pair: no $python on this machine, left out"
    continue
  fi
  folder=$(mktemp -d)
  wanted="torch==$torch" && [ "$torch" = newest ] && wanted=torch
  echo "versions: $pair"
  if ! "$python" -m venv "$folder" || ! "$folder/bin/pip" install --quiet "$wanted" 2>"$folder/why"; then
    echo "versions: $pair: $wanted cannot be installed, left out: $(tail -n 1 "$folder/why" 2>/dev/null)"
    rm -rf "$folder"
    continue
  fi
  before=$("$folder/bin/python" -c 'import torch; print(torch.__version__)')
  # setuptools: tests of the build run setup.py by itself, and an old Python's venv brings an old one
  "$folder/bin/pip" install --quiet . 'pytest>=8' 'setuptools>=77' wheel hypothesis matplotlib scikit-learn
  # what the tests name networks by; of these the newest would bring a torch of their own
  echo "torch==${before%%+*}" > "$folder/constraint"
  "$folder/bin/pip" install --quiet --constraint "$folder/constraint" '.[models,lrp]' lightning
  after=$("$folder/bin/python" -c 'import torch; print(torch.__version__)')
  if [ "$before" != "$after" ]; then
    echo "versions: $pair: installing the package exchanged torch $before for $after"
    failed=1
  fi
  "$folder/bin/python" -m pytest -q -p no:cacheprovider "${present[@]}" || failed=1
  rm -rf "$folder"
done
exit $failed
