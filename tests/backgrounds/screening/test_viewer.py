"""Classifiers as viewers of backgrounds: by name, with their own size and normalisation."""

from __future__ import annotations

import pytest
import torch
from four_kinds import pictures
from torch import nn

from torch_bgdebias.backgrounds import BackgroundBank
from torch_bgdebias.backgrounds.screening.viewer import Viewer


def test_timm_models_by_name(monkeypatch, tmp_path):
    """The name goes to timm with pretrained=True; size and normalisation are the model's own."""
    import timm

    created = []
    original = timm.create_model

    def untrained(name, pretrained=False, **options):
        created.append((name, pretrained))
        torch.manual_seed(0)
        return original(name, pretrained=False, **options)

    monkeypatch.setattr(timm, "create_model", untrained)
    bank = BackgroundBank(pictures(2, 0)[0])
    viewer = Viewer("test_vit")
    assert viewer.size == (160, 160)
    seen = viewer.logits(bank.images).topk(5).indices
    never = next(c for c in range(1000) if not (seen == c).any())
    forbidden = [int(seen[3, 4]), never]
    clean = bank.filter("timm:test_vit", forbidden, cache=tmp_path)
    assert created[0] == ("test_vit", True)
    assert len(clean) == int((~torch.isin(seen, torch.tensor(forbidden)).any(1)).sum()) < 8
    assert clean.filters[0].classifier == "test_vit"
    model = viewer.module.eval()
    pixels = nn.functional.interpolate(bank.images / 255, (160, 160), mode="bicubic", antialias=True).clamp(0, 1)
    with torch.no_grad():
        torch.testing.assert_close(viewer.logits(bank.images), model((pixels - 0.5) / 0.5))
    grey = BackgroundBank(bank.images[:, :1])
    assert len(grey.filter("test_vit", [never], cache=tmp_path)) > 0
    with pytest.raises(ValueError, match="timm has no model 'resnet51'; near names: .*resnet50"):
        bank.filter("resnet51", [1])
