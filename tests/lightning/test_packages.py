"""Which of the two Lightning packages a class comes from."""

from __future__ import annotations

import pytest

from torch_bgdebias.lightning import packages

pytest.importorskip("lightning")
pytest.importorskip("pytorch_lightning")


@pytest.fixture(autouse=True)
def choice(monkeypatch):
    """As before, whatever a test chooses."""
    monkeypatch.setattr(packages, "_choice", list(packages._choice))


@pytest.mark.parametrize("package", ["pytorch_lightning", "lightning.pytorch"])
def test_a_class_says_which_package_it_comes_from(package):
    chosen = packages.choose(
        [f"{package}.callbacks.EarlyStopping", "torch_bgdebias.callbacks.ISNetCallback", "nowhere.A"]
    )
    assert chosen.__name__ == package
    assert packages.chosen() is chosen
    assert packages.choose([f"{package}.LightningModule"]).__name__ == package


def test_classes_of_both_are_refused_and_none_says_the_first():
    with pytest.raises(ValueError, match=r"got lightning.* of lightning.pytorch and pytorch_lightning.* import both"):
        packages.choose(["lightning.pytorch.Trainer", "pytorch_lightning.Trainer"])
    assert packages.choose(["torch.nn.Linear"]) is packages.installed()[0]
