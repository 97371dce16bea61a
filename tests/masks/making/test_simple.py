"""GrabCut, boxes and functions as makers; masks within boxes by any maker; what is checked of what makers give."""

from __future__ import annotations

import sys

import pytest
import torch

from torch_bgdebias.masks import Hints, MadeMasks, MaskMaker, MaskMakingError, grabcut_masks, mask_maker
from torch_bgdebias.masks.making.in_boxes import InBoxes, otsu_threshold
from torch_bgdebias.masks.making.licences import Licence
from torch_bgdebias.masks.making.named import licence_of
from torch_bgdebias.masks.making.protocol import certainty, checked_masks


def discs():
    g = torch.Generator().manual_seed(0)
    y, x = torch.meshgrid(torch.arange(40), torch.arange(48), indexing="ij")
    truth = torch.stack([((y - 20) ** 2 + (x - c) ** 2 < 81).float() for c in (22, 26)])
    red, blue = torch.tensor([0.8, 0.2, 0.1]).view(3, 1, 1), torch.tensor([0.1, 0.3, 0.7]).view(3, 1, 1)
    image = truth[:, None] * red + (1 - truth[:, None]) * blue + 0.03 * torch.randn(2, 3, 40, 48, generator=g)
    return image.clamp(0, 1), truth


def test_grabcut_within_each_box_and_how_sure_it_is():
    pytest.importorskip("cv2")
    images, truth = discs()
    maker = mask_maker("grabcut")
    assert isinstance(maker, MaskMaker)
    plain = maker(images, Hints.none(2))
    assert torch.equal(plain.mask, grabcut_masks(images)[:, 0])
    assert plain.confidence.tolist() == [1.0, 1.0]
    boxes = torch.tensor([[8, 8, 33, 20], [8, 24, 33, 40]])
    outcome = maker(images[:1], Hints([None], [boxes]))
    both = torch.maximum(*(grabcut_masks(images[:1], box)[0, 0] for box in boxes))
    assert torch.equal(outcome.mask[0], both)
    assert ((outcome.mask[0] > 0) & (truth[0] > 0)).sum() > 150
    flat = maker(torch.full((1, 3, 20, 20), 0.5), Hints.none(1))
    assert flat.confidence == 0, "the rectangle itself: nothing is known"


def test_an_object_that_fills_its_box_is_sure():
    pytest.importorskip("cv2")
    g = torch.Generator().manual_seed(0)
    image = torch.tensor([0.1, 0.6, 0.2]).view(1, 3, 1, 1) + 0.05 * torch.randn(1, 3, 48, 64, generator=g)
    box = torch.tensor([[10, 12, 38, 52]])
    alike = mask_maker("grabcut")(image.clamp(0, 1), Hints([None], [box]))
    image[:, :, 10:38, 12:52] = torch.tensor([0.8, 0.1, 0.1]).view(1, 3, 1, 1)
    image[:, :, 10:38, 12:52] += 0.05 * torch.randn(1, 3, 28, 40, generator=g)
    filling = mask_maker("grabcut")(image.clamp(0, 1), Hints([None], [box]))
    assert filling.mask.sum() == 28 * 40, "all of the box is object"
    assert filling.confidence > 0.95
    assert alike.confidence < 0.75, "the same colours inside and outside"
    flat = mask_maker("grabcut")(torch.full((1, 3, 48, 64), 0.5), Hints([None], [box]))
    assert flat.confidence == 0


def test_settings_are_part_of_the_name():
    assert mask_maker("grabcut", iterations=3, margin=0.1).name == "grabcut (iterations 3, margin 0.1)"


def test_boxes_as_they_are():
    images = torch.zeros(2, 3, 8, 9)
    outcome = mask_maker("boxes:some.csv")(
        images, Hints([None] * 2, [torch.tensor([[1, 2, 4, 5], [6, 0, 8, 1]]), None])
    )
    expected = torch.zeros(8, 9)
    expected[1:4, 2:5] = expected[6:8, 0] = 1
    assert torch.equal(outcome.mask, torch.stack([expected, torch.zeros(8, 9)]))


def test_functions_and_modules(tmp_path, monkeypatch):
    (tmp_path / "trial_makers.py").write_text(
        "import torch\nfrom torch import nn\n"
        "def red(images):\n    return images[:, 0]\n"
        "def sure(images):\n    return images[:, :1], torch.full((len(images),), 0.25)\n"
        "class Net(nn.Module):\n    def forward(self, images):\n        return images[:, 2] * (not self.training)\n"
        "net = Net()\nnumber = 3\n"
        "def nothing(images):\n    return None\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    images = torch.rand(2, 3, 6, 7)
    outcome = mask_maker("trial_makers:red")(images, Hints.none(2))
    assert torch.equal(outcome.mask, images[:, 0])
    torch.testing.assert_close(outcome.confidence, certainty(images[:, 0]))
    given = checked_masks(mask_maker("trial_makers:sure")(images, Hints.none(2)), images, "x")
    assert given.mask.shape == (2, 6, 7)
    assert given.confidence.tolist() == [0.25, 0.25]
    assert torch.equal(mask_maker("trial_makers:net")(images, Hints.none(2)).mask, images[:, 2])
    with pytest.raises(MaskMakingError, match="trial_makers:nothing: expected a tensor of masks, got NoneType"):
        mask_maker("trial_makers:nothing")(images, Hints.none(2))
    with pytest.raises(ValueError, match="expected a function of images .*, got int"):
        mask_maker("trial_makers:number")
    with pytest.raises(ValueError, match="trial_makers has no 'blue'"):
        mask_maker("trial_makers:blue")
    with pytest.raises(ImportError, match="cannot import no_such_module"):
        mask_maker("no_such_module:red")
    sys.modules.pop("trial_makers", None)


@pytest.mark.parametrize(
    ("mask", "text"),
    [
        (torch.zeros(2, 6, 6), r"x: expected masks \(2, 6, 7\), got float32 tensor of shape \(2, 6, 6\)"),
        (torch.full((2, 6, 7), float("nan")), "x: expected finite values, got NaN or infinity"),
        (torch.full((2, 6, 7), 3.0), r"x: expected values in \[0, 1\], got \[3, 3\]; logits need a sigmoid"),
        (None, r"x: expected masks \(2, 6, 7\), got NoneType None"),
    ],
)
def test_what_is_no_mask_is_named(mask, text):
    with pytest.raises(MaskMakingError, match=text):
        checked_masks(MadeMasks(mask, torch.ones(2)), torch.rand(2, 3, 6, 7), "x")
    with pytest.raises(MaskMakingError, match=r"expected confidences \(2,\)"):
        checked_masks(MadeMasks(torch.zeros(2, 6, 7), torch.ones(3)), torch.rand(2, 3, 6, 7), "x")


def test_certainty_is_the_overlap_that_is_expected():
    """Pixels drawn with the mask's own probabilities meet its cut as often as it says."""
    mask = torch.rand(1, 30, 30, generator=torch.Generator().manual_seed(0)) ** 2
    drawn = torch.rand(400, 30, 30, generator=torch.Generator().manual_seed(1)) < mask
    cut = mask > 0.5
    overlaps = (drawn & cut).sum((1, 2)) / (drawn | cut).sum((1, 2))
    assert abs(float(certainty(mask)) - float(overlaps.mean())) < 0.01
    assert certainty(torch.stack([torch.ones(3, 3), torch.zeros(3, 3)])).tolist() == [1.0, 0.0]


class Bright:
    """A maker that knows the grey values alone, and notes what it was shown."""

    name, licence, takes, needs = "bright", Licence("none", "a test"), frozenset(), frozenset()

    def __init__(self):
        self.shown = []

    def __call__(self, images, hints):
        self.shown.append(tuple(images.shape))
        return MadeMasks(images[:, 0] / images[:, 0].amax((1, 2), keepdim=True), torch.ones(len(images)))


def test_within_boxes_any_maker_sees_the_whole_and_each_box():
    image = torch.zeros(1, 3, 40, 40)
    image[..., 2:8, 2:8] = 0.8  # stands out, and is not meant
    image[..., 20:30, 20:30] = 0.4
    maker = Bright()
    outcome = InBoxes(maker)(image, Hints([None], [torch.tensor([[18, 18, 32, 32]])]))
    assert maker.shown == [(1, 3, 40, 40), (1, 3, 16, 16)], "a tenth of the box around it"
    inside = torch.zeros(40, 40, dtype=torch.bool)
    inside[20:30, 20:30] = True
    assert torch.equal(outcome.mask[0] > 0.5, inside)
    # half in the whole picture and all in the box: 0.75, beside 0; half way between them passes for half
    torch.testing.assert_close(outcome.mask[0, 25, 25], torch.tensor(0.5 + 0.375 / 1.25), atol=0.01, rtol=0)
    assert outcome.mask[0, 4, 4] == 0
    alone = InBoxes(Bright())(image, Hints.none(1))
    assert alone.mask[0, 4, 4] == 1
    assert InBoxes(maker).takes == {"boxes"}


def test_the_threshold_parts_values_best():
    """By trying all of them."""
    shares = torch.rand(500, generator=torch.Generator().manual_seed(0)) ** 3
    levels = shares.mul(255).round()

    def between(cut):
        low, high = levels[levels <= cut], levels[levels > cut]
        return len(low) * len(high) * (low.mean() - high.mean()) ** 2 if len(low) and len(high) else torch.tensor(-1.0)

    best = max(range(255), key=lambda cut: float(between(cut)))
    assert abs(otsu_threshold(shares) - best / 255) < 2 / 255
    assert otsu_threshold(torch.full((5,), 0.2)) == 0.5
    assert 0.2 < otsu_threshold(torch.tensor([0.1, 0.1, 0.9])) < 0.8


def test_licences_are_known_before_anything_is_downloaded():
    assert licence_of("grabcut") is None
    assert licence_of("rembg:bria-rmbg").restricted
    assert "not for commercial use" in str(licence_of("transformers:briaai/RMBG-1.4"))
    assert licence_of("transformers:facebook/sam3").gated
    assert "gated" in str(licence_of("transformers:facebook/sam3"))
    assert licence_of("transformers:facebook/sam-vit-base").name == "Apache-2.0"
    assert licence_of("transformers:IDEA-Research/grounding-dino-tiny+facebook/sam3").gated
    assert licence_of("transformers:somebody/else").name == "unknown"


def test_names_of_makers():
    with pytest.raises(ValueError, match=r"--with: expected grabcut, boxes:FILE, .* got 'magic'"):
        mask_maker("magic")
    with pytest.raises(ValueError, match="checkpoint: expected none with grabcut"):
        mask_maker("grabcut", checkpoint="a.pt")
    with pytest.raises(ValueError, match="mean, std, size: expected none with grabcut"):
        mask_maker("grabcut", size=3)
