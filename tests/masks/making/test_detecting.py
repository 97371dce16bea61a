"""`BoxDetector`: what a detector of random weights sees, as torchvision's own call gives it; masks within; licences."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from torch_bgdebias.cli import main
from torch_bgdebias.masks import MakingSettings, MaskMakingError, make_masks, mask_maker
from torch_bgdebias.masks.making.detecting import BoxDetector

models = pytest.importorskip("torchvision.models")
NAME = "torchvision:ssdlite320_mobilenet_v3_large"
BIRD, DOG = 16, 18  # of COCO's 91


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A network that sees birds everywhere, in boxes of random places."""
    torch.manual_seed(0)
    network = models.get_model(NAME.partition(":")[2], weights=None, weights_backbone=None, num_classes=91)
    for block in network.head.classification_head.module_list:
        last = block[-1]
        nn.init.zeros_(last.weight)
        last.bias.data = torch.zeros(len(last.bias) // 91, 91).index_fill(1, torch.tensor([BIRD]), 6.0).flatten()
    path = tmp_path_factory.mktemp("detector") / "birds.pt"
    torch.save(network.state_dict(), path)
    return path, network.eval()


class Stub(nn.Module):
    """Sees what it is given."""

    def __init__(self, boxes, labels, scores):
        super().__init__()
        self.seen = {"boxes": torch.tensor(boxes), "labels": torch.tensor(labels), "scores": torch.tensor(scores)}

    def forward(self, images):
        return [self.seen for _ in images]


def test_the_boxes_are_those_of_torchvision_s_own_call(checkpoint):
    path, network = checkpoint
    image = torch.rand(3, 40, 60, generator=torch.Generator().manual_seed(1))
    detector = BoxDetector(NAME, checkpoint=path)
    boxes = detector.find(image, "bird")
    with torch.no_grad():
        (seen,) = network([image])
    own = seen["boxes"][seen["scores"] >= 0.5]
    assert len(own) >= 2
    assert torch.equal(boxes[:, :2], own[:, [1, 0]].floor().long().clamp(min=0))
    assert torch.equal(boxes[:, 2:], torch.minimum(own[:, [3, 2]].ceil().long(), torch.tensor([40, 60])))
    assert torch.equal(detector.find(image, None), boxes), "of any class"
    assert detector.find(image, "dog") is None
    assert "birds.pt" in str(detector.licence)


def test_class_score_and_words(checkpoint):
    detector = BoxDetector(NAME, checkpoint=checkpoint[0])
    boxes = [[2.4, 1.0, 9.2, 7.0], [0.0, 0.0, 5.0, 5.0], [3.0, 3.0, 12.0, 8.0]]
    detector.network = Stub(boxes, [BIRD, DOG, BIRD], [0.9, 0.8, 0.4])
    image = torch.zeros(3, 10, 12)
    assert detector.find(image, "Bird").tolist() == [[1, 2, 7, 10]], "top, left, bottom, right, in whole pixels"
    assert detector.find(image, None).tolist() == [[1, 2, 7, 10], [0, 0, 5, 5]]
    assert detector.find(image, "aeroplane") is None, "COCO's airplane"
    with pytest.raises(MaskMakingError, match=r"ssdlite320.*: expected one of its classes \(person, .*got 'dodo'"):
        detector.find(image, "dodo")


def test_masks_within_what_is_seen(checkpoint, tmp_path):
    for name in ("bird/a", "dog/b"):
        (tmp_path / f"in/{name}.png").parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((10, 12, 3), np.uint8)).save(tmp_path / f"in/{name}.png")
    detector = BoxDetector(NAME, checkpoint=checkpoint[0])
    detector.network = Stub([[2.0, 1.0, 9.0, 7.0], [0.0, 0.0, 5.0, 5.0]], [BIRD, DOG], [0.9, 0.8])
    maker = mask_maker("boxes:seen")
    make_masks(tmp_path / "in", tmp_path / "out", maker, settings=MakingSettings(boxes=detector))
    areas = [int((np.asarray(Image.open(tmp_path / f"out/{name}.png")) > 0).sum()) for name in ("bird/a", "dog/b")]
    assert areas == [42, 25], "each folder's own class"
    written = json.loads((tmp_path / "out/masks.json").read_text())
    assert written["settings"]["boxes"] == NAME
    assert written["boxes_licence"]["name"] == "unknown"
    detector.network = Stub([[0.0, 0.0, 5.0, 5.0]], [DOG], [0.8])
    with pytest.raises(MaskMakingError, match=r"bird/a.png: .* saw no bird that it scored 0.5 or more"):
        make_masks(tmp_path / "in", tmp_path / "other", maker, settings=MakingSettings(boxes=detector))
    settings = MakingSettings(boxes=detector, on_error="skip")
    outcome = make_masks(tmp_path / "in", tmp_path / "some", maker, settings=settings)
    assert (outcome.written, len(outcome.skipped)) == (1, 1)


def test_on_the_command_line(checkpoint, tmp_path, capsys):
    pytest.importorskip("cv2")
    (tmp_path / "in").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "in/a.png")
    words = ["masks", str(tmp_path / "in"), str(tmp_path / "out"), "--device", "cpu", "--boxes", NAME]
    words += ["--boxes-checkpoint", str(checkpoint[0])]
    assert main([*words, "--prompt", "bird"]) == 0
    printed = capsys.readouterr()
    assert "1 masks written" in printed.out
    assert f"licence of {NAME}: unknown (see where birds.pt comes from)" in printed.err
    licence = json.loads((tmp_path / "out/masks.json").read_text())["boxes_licence"]
    assert licence["source"] == "see where birds.pt comes from"
    assert main([*words, "--overwrite", "--prompt", "dog"]) == 1
    assert "saw no dog" in capsys.readouterr().err
    assert main(["masks", str(tmp_path / "in"), str(tmp_path / "b"), "--boxes", "torchvision:resnet18"]) == 1
    printed = capsys.readouterr().err
    assert "expected one of torchvision:fasterrcnn" in printed
    assert main(["masks", str(tmp_path / "in"), str(tmp_path / "b"), "--boxes-checkpoint", str(checkpoint[0])]) == 1
    assert "--boxes-checkpoint: expected none without a detector as --boxes" in capsys.readouterr().err
