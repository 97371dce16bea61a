"""`TorchvisionMaker` with checkpoints of random weights: the same masks as torchvision's own calls give."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import interpolate

from torch_bgdebias.masks import Hints, MaskMakingError, mask_maker
from torch_bgdebias.masks.making import torchvision as makers
from torch_bgdebias.preprocessing import IMAGENET_MEAN, IMAGENET_STD

models = pytest.importorskip("torchvision.models")
IMAGES = torch.rand(2, 3, 24, 32, generator=torch.Generator().manual_seed(0))


def checkpoint(path, name, **options):
    torch.manual_seed(0)
    network = models.get_model(name, weights=None, weights_backbone=None, **options).eval()
    torch.save(network.state_dict(), path)
    return network


def test_shares_of_a_class_and_of_all_but_background(tmp_path, monkeypatch):
    monkeypatch.setattr(makers, "_shorter_side", lambda images, side: images)
    network = checkpoint(tmp_path / "a.pt", "lraspp_mobilenet_v3_large", num_classes=21)
    maker = mask_maker("torchvision:lraspp_mobilenet_v3_large", checkpoint=tmp_path / "a.pt")
    mean, std = (torch.tensor(unit).view(1, 3, 1, 1) for unit in (IMAGENET_MEAN, IMAGENET_STD))
    with torch.no_grad():
        logits = network((IMAGES - mean) / std)["out"]
    shares = interpolate(logits, (24, 32), mode="bilinear", align_corners=False).softmax(1)
    outcome = maker(IMAGES, Hints(["bird", None], [None, None]))
    torch.testing.assert_close(outcome.mask, torch.stack([shares[0, 3], 1 - shares[1, 0]]))
    with pytest.raises(
        MaskMakingError, match=r"expected one of its classes \(aeroplane, .*\), got 'zebra'; --prompt ''"
    ):
        maker(IMAGES, Hints(["zebra", None], [None, None]))
    with pytest.raises(ValueError, match=r"torchvision:resnet18: expected one of maskrcnn_resnet50_fpn, .*deeplabv3"):
        mask_maker("torchvision:resnet18")
    with pytest.raises(ValueError, match="a.pt"):
        mask_maker("torchvision:deeplabv3_mobilenet_v3_large", checkpoint=tmp_path / "a.pt")


def test_the_shorter_side_is_that_of_the_published_transform():
    scaled = makers._shorter_side(torch.rand(1, 3, 30, 45), 520)
    assert scaled.shape == (1, 3, 520, 780)


def test_instances_of_a_class_are_joined(tmp_path, monkeypatch):
    network = checkpoint(tmp_path / "m.pt", "maskrcnn_resnet50_fpn", num_classes=91)
    maker = mask_maker("torchvision:maskrcnn_resnet50_fpn", checkpoint=tmp_path / "m.pt")
    network.roi_heads.score_thresh = maker.network.roi_heads.score_thresh = 0.0
    monkeypatch.setattr(makers, "_LEAST_SCORE", 0.0)
    with torch.no_grad():
        (result,) = network([IMAGES[0]])
    number = int(result["labels"][0])
    name = maker.classes[number]
    outcome = maker(IMAGES[:1], Hints([name], [None]))
    torch.testing.assert_close(outcome.mask[0], result["masks"][result["labels"] == number, 0].amax(0))
    torch.testing.assert_close(outcome.confidence[0], result["scores"][result["labels"] == number].max())
    torch.testing.assert_close(maker(IMAGES[:1], Hints.none(1)).mask[0], result["masks"][:, 0].amax(0))
    monkeypatch.setattr(makers, "_LEAST_SCORE", 1.1)
    nothing = maker(IMAGES[:1], Hints.none(1))
    assert nothing.mask.sum() == nothing.confidence.sum() == 0
    numbers = [makers.category_number(maker.name, text, maker.classes) for text in ("aeroplane", "Airplane")]
    assert numbers == [5, 5]
