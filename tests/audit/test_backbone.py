"""A named network's embedding as a cue: what enters its last layer, by its own way of taking pictures."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from torch_bgdebias.audit import AuditSettings, audit
from torch_bgdebias.audit.backbone import backbone_embedding

timm = pytest.importorskip("timm")


def test_the_embedding_is_timm_s_own(tmp_path):
    torch.manual_seed(0)
    model = timm.create_model("test_resnet").eval()
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    embed = backbone_embedding(AuditSettings(backbone="timm:test_resnet", checkpoint=tmp_path / "weights.pt"))
    image = torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(1))
    config = timm.data.resolve_data_config({}, model=model)
    mean, std = (torch.tensor(config[name]).view(1, 3, 1, 1) for name in ("mean", "std"))
    mode = config["interpolation"]
    scaled = interpolate(image, config["input_size"][1:], mode=mode, antialias=True, align_corners=False).clamp(0, 1)
    with torch.no_grad():
        expected = model.forward_head(model.forward_features((scaled - mean) / std), pre_logits=True)
    np.testing.assert_allclose(embed(image), expected.numpy(), rtol=1e-4, atol=1e-5)


def test_an_audit_with_random_weights_finds_what_is_planted():
    random = np.random.default_rng(0)
    items = []
    for number in range(48):
        picture = random.integers(90, 160, (32, 32, 3), dtype=np.uint8)
        picture[:10] = picture[:10] // 2 if number % 2 else picture[:10]
        mask = np.zeros((32, 32), np.uint8)
        mask[12:22, 12:22] = 255
        items.append((torch.from_numpy(picture).permute(2, 0, 1), number % 2, torch.from_numpy(mask)))
    torch.manual_seed(0)
    report = audit(items, settings=AuditSettings(permutations=199, backbone="timm:test_resnet"))
    readings = {reading.cue.name: reading for reading in report.readings}
    assert readings["backbone"].p_value <= 0.05
    assert readings["backbone"].area.value > 0.9


def test_the_object_is_hidden_from_it():
    random = np.random.default_rng(1)
    items = []
    for number in range(48):
        picture = random.integers(90, 160, (32, 32, 3), dtype=np.uint8)
        picture[12:22, 12:22] = 255 * (number % 2)
        mask = np.zeros((32, 32), np.uint8)
        mask[12:22, 12:22] = 255
        items.append((torch.from_numpy(picture).permute(2, 0, 1), number % 2, torch.from_numpy(mask)))
    torch.manual_seed(0)
    report = audit(items, settings=AuditSettings(permutations=199, backbone="timm:test_resnet"))
    readings = {reading.cue.name: reading.p_value for reading in report.readings}
    assert readings["backbone"] > 0.05
    assert readings["whole"] <= 0.05, "the object differs, and is seen where it is not hidden"
