"""The examples with other trainers run, where those are installed, and stay short."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
#: example -> packages it needs
NEEDS = {
    "timm_loop": ["timm"],
    "accelerate_loop": ["accelerate"],
    "ignite_engine": ["ignite"],
    "hf_trainer": ["transformers", "accelerate"],
    "fastai_learner": ["fastai"],
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NEEDS)
def test_runs(name, monkeypatch, capsys):
    for package in NEEDS[name]:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    monkeypatch.syspath_prepend(EXAMPLES)
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.main(epochs=1)
    assert "loss" in capsys.readouterr().out


@pytest.mark.parametrize("name", NEEDS)
def test_is_short(name):
    assert len((EXAMPLES / f"{name}.py").read_text(encoding="utf-8").splitlines()) < 60
