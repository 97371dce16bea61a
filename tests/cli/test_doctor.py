"""What the doctor says is what is there."""

from __future__ import annotations

import importlib.metadata
import json

import pytest
import torch

from torch_bgdebias import __version__, cli
from torch_bgdebias._optional import EXTRAS
from torch_bgdebias.cli import doctor
from torch_bgdebias.ops import extension_status


def test_it_says_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["schema"] == "torch_bgdebias.doctor/1"
    assert facts["versions"]["torch_bgdebias"] == __version__
    assert facts["versions"]["torch"] == importlib.metadata.version("torch")
    assert facts["kernel"]["state"] == extension_status().state
    assert facts["devices"]["cpu"].endswith(f"{torch.get_num_threads()} threads")
    assert set(facts["optional_packages"]) == set(EXTRAS)
    assert facts["problems"] == []
    assert cli.main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "optional packages" in out
    assert facts["versions"]["numpy"] in out


def test_what_is_missing_is_named_with_its_remedy(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = doctor._version_of
    monkeypatch.setattr(doctor, "_version_of", lambda name: None if name in ("scipy", "timm") else installed(name))
    assert cli.main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "problem: scipy is needed and not installed: pip install scipy" in out
    assert "pip install 'torch_bgdebias[models]'" in out


def test_without_torch_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = doctor._version_of
    monkeypatch.setattr(doctor, "_version_of", lambda name: None if name == "torch" else installed(name))
    for name in ("_devices", "_kernel", "_lightning"):
        monkeypatch.setattr(doctor, name, None)  # they import it
    facts = doctor.findings()
    assert facts["problems"] == ["torch is needed and not installed: pip install torch"]
    assert facts["devices"] == facts["kernel"] == facts["lightning"] == {}


def test_lightning_is_said_to_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> list[object]:
        raise ImportError("a callback needs Lightning")

    monkeypatch.setattr("torch_bgdebias.lightning.packages.installed", none)
    facts = doctor.findings()
    assert facts["lightning"] == {"packages": "none"}
    assert facts["problems"] == ["a callback needs Lightning"]
