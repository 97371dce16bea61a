"""Images in other units than the network was trained on: a warning that says what to do; else nothing."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

from torch_bgdebias.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from torch_bgdebias.probe import evaluate_background_bias
from torch_bgdebias.probe.passes.units import doubt_about_units

WANTED = Preprocessing(None, IMAGENET_MEAN, IMAGENET_STD)


@pytest.fixture(scope="module")
def network():
    """A network whose batch normalisation has seen normalised pictures."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(16, 2),
    )  # fmt: skip
    generator = torch.Generator().manual_seed(1)
    for _ in range(60):
        model(WANTED.normalise(pictures(16, generator)))
    return model.eval()


def pictures(count, generator, gain=1.0):
    """Smooth pictures in [0, 1] with the means and spreads of photographs."""
    small = torch.randn(count, 3, 4, 4, generator=generator)
    smooth = nn.functional.interpolate(small, (24, 24), mode="bilinear")
    mean, std = (torch.tensor(x).reshape(3, 1, 1) for x in (IMAGENET_MEAN, IMAGENET_STD))
    return (gain * (smooth * 1.3 * std + mean)).clamp(0, 1)


def said(model, image, **options):
    """What is warned of about units."""
    label, mask = torch.arange(len(image)) % 2, torch.zeros(len(image), 1, 24, 24)
    mask[:, :, 8:16, 8:16] = 1
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        report = evaluate_background_bias(model, [(image, label, mask)], variants=["mixed_rand"], **options)
    return [
        str(w.message)
        for w in caught
        if any(word in str(w.message) for word in ("units", "normalised with", "preprocess: "))
    ], report


def test_pixels_in_01_into_a_network_of_normalised_ones(network):
    image = pictures(32, torch.Generator().manual_seed(2))
    messages, report = said(network, image)
    assert len(messages) == 1
    assert "the network's first batch normalisation (1) sees 0.2" in messages[0]
    assert "pass preprocess=Preprocessing(mean=..., std=...)" in messages[0]
    right, prepared = said(network, image, preprocess=WANTED)
    assert right == []
    assert prepared.settings["preprocess"] == WANTED.describe()
    assert said(network, WANTED.normalise(image), mean=IMAGENET_MEAN, std=IMAGENET_STD)[0] == []
    assert not torch.equal(
        torch.from_numpy(report.images.confidence["original"]), torch.from_numpy(prepared.images.confidence["original"])
    )


def small_features(batches):
    """A network whose first features are so small that the variance of 1 it began with outweighs theirs for long."""
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    nn.init.normal_(model[0].weight, std=0.01, generator=generator)
    for _ in range(batches):
        model(pictures(16, generator))
    return model.eval()


def doubt(model, image):
    return doubt_about_units(model, model, image, image, normalised=None)


def test_what_a_batch_norm_began_with_is_no_training():
    image = pictures(32, torch.Generator().manual_seed(2))
    model = small_features(batches=40)
    norm = model[1]
    assert norm.running_var.max() < 5e-2
    assert norm.running_var.min() > 9 * model[0](image).var((0, 2, 3)).max(), "mostly the beginning's"
    assert doubt(model, image) == ""
    assert "times the spread of its training" in doubt(model, 40 * image)
    assert "sees 4.6 times" in doubt(small_features(batches=120), 5 * image)
    with torch.no_grad():  # statistics that were loaded, of a training that nobody counted
        norm.running_var.copy_(model[0](image).var((0, 2, 3)))
        norm.running_mean.copy_(model[0](image).mean((0, 2, 3)))
    assert doubt(model, image) == ""


def test_the_same_answers_whoever_normalises(network):
    image = pictures(32, torch.Generator().manual_seed(2))
    by_preprocess = said(network, image, preprocess=WANTED)[1]
    by_loader = said(network, WANTED.normalise(image), mean=IMAGENET_MEAN, std=IMAGENET_STD)[1]
    for variant in ("original", "mixed_rand"):
        first, second = (r.images.confidence[variant] for r in (by_preprocess, by_loader))
        torch.testing.assert_close(torch.from_numpy(first), torch.from_numpy(second), atol=1e-5, rtol=1e-4)


def test_bytes_are_far_off(network):
    messages, _ = said(network, pictures(32, torch.Generator().manual_seed(2)) * 255)
    assert "times the spread of its training" in messages[0]


@pytest.mark.parametrize("gain", [0.5, 1.0, 1.4])
def test_darker_and_brighter_pictures_are_no_other_units(network, gain):
    image = pictures(32, torch.Generator().manual_seed(3), gain)
    assert said(network, image, preprocess=WANTED)[0] == []


def test_a_mean_that_was_never_subtracted(network):
    image = pictures(32, torch.Generator().manual_seed(2))
    messages, _ = said(network, image, mean=IMAGENET_MEAN, std=IMAGENET_STD)
    assert len(messages) == 1
    assert "so they were not normalised with them; normalise them in the loader" in messages[0]


def test_networks_that_cannot_tell():
    image = pictures(8, torch.Generator().manual_seed(2))
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    fresh = nn.Sequential(nn.BatchNorm2d(3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    for model in (plain, fresh):
        assert said(model, image)[0] == []


@pytest.mark.parametrize(
    ("mean", "std", "text"),
    [((0.0,) * 3, (1.0,) * 3, "with"), (IMAGENET_MEAN, IMAGENET_STD, "with 0.5 and 0.5, as their range of -1 to 1")],
)
def test_a_mean_and_std_that_the_images_do_not_have(mean, std, text):
    """Normalised with 0.5 and 0.5, they are said to be raw, or to have ImageNet's: no network is needed to see it."""
    image = torch.rand(8, 3, 24, 24, generator=torch.Generator().manual_seed(0)) * 2 - 1
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 24 * 24, 2))
    messages, _ = said(model, image, mean=mean, std=std)
    assert len(messages) == 1
    assert f"so the images were normalised {text}" in messages[0]
    assert "mean, std: undone, they give pixels from" in messages[0]
    assert said(model, image, mean=[0.5] * 3, std=[0.5] * 3)[0] == []
    pale = Preprocessing(None, IMAGENET_MEAN, IMAGENET_STD).normalise(torch.rand(8, 3, 24, 24) * 0.2 + 0.4)
    assert said(model, pale, mean=IMAGENET_MEAN, std=IMAGENET_STD)[0] == []


def test_a_network_without_batch_normalisation_has_timms_word():
    timm = pytest.importorskip("timm")
    model = timm.create_model("test_vit", num_classes=2).eval()
    image = nn.functional.interpolate(pictures(32, torch.Generator().manual_seed(2)), (160, 160))
    label, mask = torch.arange(32) % 2, torch.zeros(32, 1, 160, 160)
    mask[:, :, 40:90, 40:90] = 1
    text = r"timm's data config of test_vit normalises them with mean \(0.5, 0.5, 0.5\)"
    with pytest.warns(UserWarning, match=text):
        evaluate_background_bias(model, [(image, label, mask)], variants=["mixed_rand"])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        right = Preprocessing(None, (0.5,) * 3, (0.5,) * 3)
        evaluate_background_bias(model, [(image, label, mask)], variants=["mixed_rand"], preprocess=right)
    assert not [w for w in caught if "timm's data config" in str(w.message)]


def test_a_mean_beyond_two_standard_deviations_is_doubted_and_one_within_is_not():
    model = nn.Sequential(nn.BatchNorm2d(3))
    model[0].num_batches_tracked += 100
    model.eval()
    pixels = torch.randn(16, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    for shift, doubted in ((1.7, False), (2.3, True), (-2.3, True)):
        image = pixels + shift
        text = doubt_about_units(model, model, image, image, normalised=None)
        assert ("standard deviations off" in text) == doubted, text


class Branched(nn.Module):
    """A branch that runs in training alone is registered first."""

    def __init__(self, trunk):
        super().__init__()
        self.branch, self.trunk = nn.BatchNorm2d(16), trunk

    def forward(self, image):
        return self.trunk(image)


def test_the_batch_normalisation_that_runs_first_is_looked_at(network):
    """The first by its name did not run, and nothing was said."""
    model = Branched(network)
    model.branch.num_batches_tracked.fill_(99)
    image = pictures(32, torch.Generator().manual_seed(2))
    (text,), _ = said(model.eval(), image)
    assert "first batch normalisation (trunk.1) sees 0.2" in text
    assert said(model, image, preprocess=WANTED)[0] == []
    assert not network[1]._forward_pre_hooks


@pytest.mark.parametrize("bytes_", [False, True])
def test_what_is_prepared_a_second_time_is_told(bytes_):
    """By a network without batch normalisation, which shows nothing itself."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    image = pictures(32, torch.Generator().manual_seed(2))
    loaded = image * 255 if bytes_ else WANTED.normalise(image)
    (text,) = said(model, loaded, preprocess=WANTED)[0]
    assert "preprocess: it is for pixels in [0, 1], and the loader's reach from" in text
    assert said(model, image, preprocess=WANTED)[0] == []


def test_what_is_divided_by_255_a_second_time_is_told(network):
    """As image processors do (rescale) with what a loader has scaled already."""
    image = pictures(32, torch.Generator().manual_seed(2))
    (text,) = said(network, image, preprocess=lambda x: WANTED.normalise(x / 255))[0]
    assert "hardly a picture: does it divide by 255, which was done already? (do_rescale" in text
    assert said(network, image, preprocess=lambda x: WANTED.normalise(x))[0] == []


def test_another_normalisation_than_timm_says_is_told():
    timm = pytest.importorskip("timm")
    model = timm.create_model("vit_tiny_patch16_224", num_classes=2, img_size=24, patch_size=8).eval()
    image = pictures(8, torch.Generator().manual_seed(2))
    (text,), _ = said(model, WANTED.normalise(image), mean=IMAGENET_MEAN, std=IMAGENET_STD)
    assert "timm's data config of vit_tiny_patch16_224 says (0.5, 0.5, 0.5) and (0.5, 0.5, 0.5)" in text
    assert said(model, image, preprocess=Preprocessing(None, [0.5], [0.5]))[0] == []
