#!/usr/bin/env bash
# Build sdist and wheel without the extension (what users get from `pip install`), then import the wheel elsewhere.
set -euo pipefail
python=$(realpath -s "$1")
root=$(pwd)
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
"$python" -m build --outdir "$out/dist" "$root" >"$out/log" 2>&1 || { tail -n 40 "$out/log"; exit 1; }
ls "$out"/dist
wheel=$(ls "$out"/dist/torch_bgdebias-*-py3-none-any.whl)  # pure: fails here when a binary slipped in

# An empty environment that borrows the third-party packages, and holds nothing of this checkout.
"$python" -m venv --without-pip "$out/env"
site=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
target=$("$out/env/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
"$python" -m pip install --quiet --no-deps --target "$target" "$wheel"
cd "$out"
"$out/env/bin/python" - "$site" <<'PY'
import sys, warnings
sys.path.append(sys.argv[1])  # packages only: .pth files (an editable install) are not followed
warnings.simplefilter("error")
import torch_bgdebias
assert "site-packages" in torch_bgdebias.__file__ and sys.argv[1] not in torch_bgdebias.__file__, torch_bgdebias.__file__
heavy = [m for m in ("pytorch_lightning", "kornia", "zennit", "torchvision", "timm", "torchmetrics") if m in sys.modules]
assert not heavy, f"import torch_bgdebias woke {heavy}"
import torch
foreground, bank = torch.rand(2, 3, 8, 9), torch.rand(4, 3, 5, 5)
image = torch_bgdebias.voronoi_composite(
    foreground, torch.zeros(2, 1, 8, 9), bank, torch.rand(2, 3, 2) * 8, torch.randint(4, (2, 3)), torch.randint(5, (2, 3, 2)))
print("wheel ok:", torch_bgdebias.__version__, torch_bgdebias.extension_status().state, tuple(image.shape))
PY
