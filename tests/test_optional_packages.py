"""Without the packages that extras bring: what does not need them works, the rest says which extra to install."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path

import pytest

from torch_bgdebias._optional import EXTRAS

ROOT = Path(__file__).resolve().parents[1]
#: what ``pip install torch_bgdebias`` may not bring, because the newest of them bring a torch of their own
OPTIONAL = ("torchvision", "timm", "zennit")


#: other packages ask for them by finding them and by their installed metadata, so both are hidden
HIDE = f"""
import importlib.metadata, importlib.util, sys
find_spec = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: (
    None if name.split(".")[0] in {OPTIONAL!r} else find_spec(name, package))
from_name = importlib.metadata.Distribution.from_name
def distribution(name):
    if name in {OPTIONAL!r}:
        raise importlib.metadata.PackageNotFoundError(name)
    return from_name(name)
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {OPTIONAL!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
importlib.metadata.Distribution.from_name = distribution
sys.meta_path.insert(0, Absent())
"""


def without_them(code: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process where none of the optional packages is there."""
    command = [sys.executable, "-c", HIDE + textwrap.dedent(code)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def test_the_core_works_without_extras():
    """Swap, CLAD, ISNet, the measurement and its page; the command line's help."""
    done = without_them("""
        import pathlib, tempfile, torch, torch_bgdebias as bg
        from torch import nn
        torch.manual_seed(0)
        image, label = torch.rand(8, 3, 16, 16), torch.arange(8) % 2
        mask = torch.zeros(8, 1, 16, 16); mask[:, :, 4:11, 4:11] = 1
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
        bg.BackgroundSwap("batch")(image, mask, label)
        bg.CLADLoss(2)(torch.rand(8, 4), torch.rand(8, 4), label, label)
        relevance = bg.ISNet(model).explain(image, create_graph=True).relevance
        bg.ISNetLoss()(relevance, mask).mean().backward()
        report = bg.evaluate_background_bias(model, [(image, label, mask)], attributions=["grad_cam"])
        bg.probe.report_to_html([report], pathlib.Path(tempfile.mkdtemp(), "report.html"))
        from torch_bgdebias.cli import main
        assert main(["probe", "--help"]) == 0
    """)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("code", "package", "extra"),
    [
        ("from torch_bgdebias.lrp import FlexComposite", "zennit", "lrp"),
        ("from torch_bgdebias.named_models import load_model; load_model('timm:resnet18')", "timm", "models"),
        (
            "from torch_bgdebias.named_models import load_model; load_model('torchvision:resnet18')",
            "torchvision",
            "models",
        ),
    ],
)
def test_what_is_missing_says_what_to_install(code, package, extra):
    done = without_them(code)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert f"needs {package}" in last
    assert f"pip install 'torch_bgdebias[{extra}]'" in last


def test_the_core_asks_for_nothing_that_brings_its_own_torch():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    core = {entry.split(">")[0].split("[")[0] for entry in project["dependencies"]}
    assert not core & set(OPTIONAL)
    assert "torch>=2.5" in project["dependencies"]
    extras = project["optional-dependencies"]
    for package, extra in EXTRAS.items():
        named = {"cv2": "opencv-python-headless", "sklearn": "scikit-learn"}.get(package, package)
        assert any(entry.startswith(named) for entry in extras[extra]), (package, extra)
    everything = next(entry for entry in extras["dev"] if entry.startswith("torch_bgdebias["))
    own_environment = {
        "tools",
        "fiftyone",
    }  # about 90 packages, some of which hold others back: tests skip without them
    assert set(everything.split("[")[1].rstrip("]").split(",")) == set(extras) - {"dev"} - own_environment
