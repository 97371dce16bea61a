"""What a model wants of its images: validated once, applied to image and mask, written and read back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from torch_bgdebias.data import MaskedImageFolder, example_folder
from torch_bgdebias.named_models import load_model
from torch_bgdebias.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing


def test_normalises_and_restores():
    wanted = Preprocessing(8, IMAGENET_MEAN, IMAGENET_STD)
    image = torch.rand(2, 3, 8, 8)
    normalised = wanted.normalise(image)
    assert float(normalised[1, 2, 3, 4]) == pytest.approx((float(image[1, 2, 3, 4]) - 0.406) / 0.225, abs=1e-6)
    torch.testing.assert_close(wanted.restore(normalised), image)
    plain = Preprocessing(8)
    assert plain.normalise(image) is image
    assert plain.restore(image) is image


def test_one_number_stands_for_every_channel():
    image = torch.rand(1, 4, 4)
    torch.testing.assert_close(Preprocessing(None, [0.5], [0.25]).normalise(image), (image - 0.5) / 0.25)
    with pytest.raises(ValueError, match="expected 3 channels, as mean and std have, got float32 tensor"):
        Preprocessing(None, IMAGENET_MEAN, IMAGENET_STD).normalise(image)
    with pytest.raises(TypeError, match="convert with image / 255"):
        Preprocessing(None, [0.5], [0.25]).normalise(torch.zeros(3, 4, 4, dtype=torch.uint8))


def test_image_and_mask_are_resized_together():
    image, mask = torch.rand(3, 12, 16), torch.zeros(1, 12, 16)
    mask[:, :, 8:] = 1
    small, small_mask = Preprocessing((6, 8))(image, mask)
    assert small.shape == (3, 6, 8)
    assert small_mask.shape == (1, 6, 8)
    assert small_mask[0, 0, 0] == 0
    assert small_mask[0, 0, -1] == 1
    same, same_mask = Preprocessing((12, 16))(image, mask)
    assert same is image
    assert torch.equal(same_mask, mask)
    assert Preprocessing()(image, mask)[0] is image


def test_colour_becomes_grey():
    image = torch.rand(2, 3, 4, 4)
    grey = Preprocessing(None, IMAGENET_MEAN, IMAGENET_STD).for_channels(1)
    assert grey.mean == pytest.approx((0.449,), abs=1e-6)
    assert grey.describe() == "own size, grey, mean (0.449), std (0.226) (averaged over channels)"
    luma = 0.299 * image[:, :1] + 0.587 * image[:, 1:2] + 0.114 * image[:, 2:]
    torch.testing.assert_close(grey.normalise(image), (luma - grey.mean[0]) / grey.std[0])
    torch.testing.assert_close(grey(luma), grey(image))
    assert Preprocessing(None, IMAGENET_MEAN, IMAGENET_STD).for_channels(3).mean == IMAGENET_MEAN
    with pytest.raises(ValueError, match="channels: expected 1 or 3, got 2"):
        Preprocessing(channels=2)


def test_equal_settings_are_equal_however_they_were_said():
    assert Preprocessing(224, [0.5] * 3, [0.25] * 3) == Preprocessing((224, 224), (0.5,) * 3, (0.25,) * 3, source="x")
    assert Preprocessing(224) != Preprocessing((224, 192))


def test_written_and_read():
    for wanted in (Preprocessing(), Preprocessing((4, 6), [0.5], [0.25], "a hand", 1)):
        again = Preprocessing.from_dict(wanted.to_dict())
        assert again == wanted
        assert again.source == wanted.source
    assert Preprocessing(224, [0.5], [0.25], "me").describe() == "224 x 224 bilinear, mean (0.5), std (0.25) (me)"
    assert Preprocessing().describe() == "own size, pixels in [0, 1]"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 0}, r"size: expected a positive int or \(H, W\), got 0"),
        ({"size": (3, 4, 5)}, r"size: expected a positive int or \(H, W\), got \(3, 4, 5\)"),
        ({"size": True}, r"size: expected a positive int or \(H, W\), got True"),
        ({"mean": [0.5]}, "mean, std: expected both or none, got only mean"),
        ({"std": [0.5]}, "mean, std: expected both or none, got only std"),
        ({"mean": [0.5], "std": [0.5, 0.5]}, "mean, std: expected as many of one as of the other, got 1 and 2"),
        ({"mean": [0.5], "std": [0.0]}, "expected finite numbers and std above 0"),
    ],
)
def test_what_does_not_fit_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        Preprocessing(**arguments)


def test_interpolation_and_crop_are_carried():
    wanted = Preprocessing(8, IMAGENET_MEAN, IMAGENET_STD, "somebody", interpolation="bicubic", crop=0.875)
    assert Preprocessing.from_dict(wanted.to_dict()) == wanted
    assert Preprocessing.from_dict(wanted.to_dict()).crop == 0.875
    assert wanted.describe().startswith("8 x 8 bicubic, whole, where the publisher crops to 0.875, mean (0.485")
    image = (torch.rand(3, 30, 20) > 0.5).float()
    bicubic, bilinear = (Preprocessing((12, 8), interpolation=name)(image) for name in ("bicubic", "bilinear"))
    expected = torch.nn.functional.interpolate(image[None], (12, 8), mode="bicubic", antialias=True)[0].clamp(0, 1)
    torch.testing.assert_close(bicubic, expected)
    assert not torch.allclose(bicubic, bilinear, atol=0.01)
    known = {key: value for key, value in wanted.to_dict().items() if key not in ("interpolation", "crop")}
    assert Preprocessing.from_dict(known).interpolation == "bilinear"  # a checkpoint of an earlier version
    for options, text in (
        ({"interpolation": "cubic"}, "interpolation: expected one of 'bilinear', 'bicubic', 'nearest', got 'cubic'"),
        ({"crop": 0}, "crop: expected a share above 0"),
        ({"crop": 1.5}, "crop: expected a share"),
    ):
        with pytest.raises(ValueError, match=text):
            Preprocessing(**options)


def test_what_published_networks_want():
    net = load_model("timm:vit_tiny_patch16_224").preprocessing
    assert (net.height_width, net.interpolation, net.crop) == ((224, 224), "bicubic", 0.9)
    net = load_model("torchvision:resnet18").preprocessing
    assert (net.height_width, net.interpolation, net.crop) == ((224, 224), "bilinear", 224 / 256)


def test_a_folder_resizes_as_it_is_told(tmp_path):
    data = MaskedImageFolder(example_folder(tmp_path, images_per_class=1, size=40), size=16, interpolation="bicubic")
    stored = Image.open(data.samples[0].image).convert("RGB").resize((16, 16), Image.Resampling.BICUBIC)
    torch.testing.assert_close(data[0][0], torch.from_numpy(np.array(stored)).permute(2, 0, 1) / 255)
