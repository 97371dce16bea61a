"""With ``lightning`` alone, with ``pytorch_lightning`` alone, with both in either order, and without any."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from torch_bgdebias import callbacks

ROOT = Path(__file__).resolve().parents[2]
HERE = "tests/callbacks"


def environment(*without: str) -> dict[str, str]:
    paths = [str(ROOT), str(ROOT / "tests" / "helpers"), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "WITHOUT": ",".join(without), "OMP_NUM_THREADS": "1"}


def run(code: str, *without: str) -> str:
    """What the code prints in a process where some packages are not there."""
    command = [sys.executable, "-W", "ignore", "-c", "import without_packages\n" + textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment(*without), cwd=ROOT)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


FIT = """
    import small_training as small
    assert small.PACKAGES == ({package!r},), small.PACKAGES
    import importlib, torch
    base = importlib.import_module({package!r})
    for name, make in small.CALLBACKS.items():
        callback = make()
        assert isinstance(callback, base.Callback), name
        for callbacks in (callback, [make()]):
            module = small.theirs({package!r})
            trainer = small.trainer(callbacks, {package!r})
            trainer.fit(module, small.loader(), small.loader())
            assert any("/" in key for key in trainer.callback_metrics), name
            assert "training_step" not in vars(module)
    print("fitted", len(small.CALLBACKS))
"""


@pytest.mark.parametrize(
    ("package", "other"), [("pytorch_lightning", "lightning"), ("lightning.pytorch", "pytorch_lightning")]
)
def test_either_one_suffices(package, other):
    pytest.importorskip(package)
    assert "fitted 5" in run(FIT.format(package=package), other)


@pytest.mark.parametrize("first", ["pytorch_lightning", "lightning.pytorch", "torch_bgdebias.callbacks"])
def test_a_callback_is_of_both_whichever_was_imported_first(first):
    for package in ("pytorch_lightning", "lightning.pytorch"):
        pytest.importorskip(package)
    run(f"""
        import {first}
        from torch_bgdebias.callbacks import BackgroundSwapCallback
        from torch_bgdebias import BackgroundSwap
        import lightning.pytorch, pytorch_lightning
        callback = BackgroundSwapCallback(BackgroundSwap())
        assert isinstance(callback, lightning.pytorch.Callback) and isinstance(callback, pytorch_lightning.Callback)
    """)


def test_without_any_all_but_callbacks_works():
    out = run(
        """
        import tempfile, torch, torch_bgdebias as bg
        from pathlib import Path
        from torch import nn
        torch.manual_seed(0)
        image, label = torch.rand(8, 3, 16, 16), torch.arange(8) % 2
        mask = torch.zeros(8, 1, 16, 16); mask[:, :, 4:11, 4:11] = 1
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
        bg.BackgroundSwap("batch")(image, mask, label)
        bg.CLADLoss(2)(torch.rand(8, 4), torch.rand(8, 4), label, label)
        explanation = bg.ISNet(model).explain(image, create_graph=True)
        bg.ISNetLoss()(explanation.relevance, mask).mean().backward()
        report = bg.evaluate_background_bias(model, [(image, label, mask)])
        bg.probe.report_to_html([report], Path(tempfile.mkdtemp(), "report.html"))
        from torch_bgdebias.metrics import BackgroundGap
        BackgroundGap().update(label, label, label)
        from torch_bgdebias.concepts import ConceptProbe
        ConceptProbe(model, ["1"], size=8, epochs=1).fit(image, mask, label)
        from torch_bgdebias.cli import main
        for command in ("probe", "masks", "demo", "train"):
            assert main([command, "--help"]) == 0
        folder = bg.data.example_folder(tempfile.mkdtemp() + "/data", images_per_class=2)
        from torch_bgdebias import callbacks
        for name in callbacks.__all__:
            try:
                getattr(callbacks, name)
            except ImportError as error:
                print(name, "|", error)
        assert main(["train", "fit", "--model", "torch_bgdebias.train.ImageClassifier"]) != 0
        """,
        "lightning",
        "pytorch_lightning",
    )
    for name in callbacks.__all__:
        (line,) = [line for line in out.splitlines() if line.startswith(f"{name} |")]
        assert "pip install lightning (or pytorch-lightning)" in line


@pytest.mark.slow
@pytest.mark.parametrize("other", ["lightning", "pytorch_lightning"])
def test_the_whole_table_with_one_package(other):
    files = [f"{HERE}/{name}.py" for name in ("test_table", "test_contract", "test_hidden_masks")]
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-n",
        "0",
        "-p",
        "without_packages",
        "-p",
        "no:cacheprovider",
        *files,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment(other), cwd=ROOT)
    assert done.returncode == 0, done.stdout[-4000:]
