"""What whoever reads the figures is told: heads that took a sigmoid, one answer to everything, ids that are none."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from torch_bgdebias.batch import BatchSpec
from torch_bgdebias.probe import evaluate_background_bias

LABEL = torch.arange(24) % 3
IMAGE = torch.rand(24, 3, 8, 8, generator=torch.Generator().manual_seed(0))
MASK = torch.zeros(24, 1, 8, 8)
MASK[:, :, 2:6, 2:6] = 1


def measured(model, loader=None, **options):
    """The report, and what was warned of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        report = evaluate_background_bias(
            model.eval(), loader or [(IMAGE, LABEL, MASK)], variants=["mixed_same", "mixed_rand"], **options
        )
    return report, [str(w.message) for w in caught]


def linear():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 3))


def test_a_sigmoid_of_each_class_is_undone():
    """Its outputs were taken for logits once: confidence and calibration were wrong, accuracy was not."""
    plain, _ = measured(linear())
    report, messages = measured(nn.Sequential(linear(), nn.Sigmoid()))
    assert [m for m in messages if "takes a sigmoid of each class's logit" in m]
    np.testing.assert_allclose(report.images.confidence["original"], plain.images.confidence["original"], rtol=1e-4)
    assert report.settings["embedding_layer"] == "0.1"  # the second look at the network is no second call
    assert not [m for m in messages if "feature consistency" in m]
    inside = nn.Sequential(linear(), nn.Hardtanh(0.0, 1.0))  # in [0, 1] without a sigmoid
    assert not [m for m in measured(inside)[1] if "sigmoid" in m]


class PerCent(nn.Module):
    """What is written by hand shows no sigmoid."""

    def forward(self, z):
        return 100 / (1 + torch.exp(-9 * z))


def test_per_cent_that_are_taken_for_logits_are_told():
    plain, _ = measured(linear())
    report, messages = measured(nn.Sequential(linear(), PerCent()))
    assert [m for m in messages if "all values lie in [0, 100] and are taken for logits; if they are shares" in m]
    np.testing.assert_array_equal(report.images.prediction["original"], plain.images.prediction["original"])
    sets = [(IMAGE, torch.nn.functional.one_hot(LABEL, 3), MASK)]
    _, messages = measured(nn.Sequential(linear(), PerCent()), sets, task="multilabel")
    (advice,) = [m for m in messages if "which say yes above 0, that is always" in m]
    assert "pass logits=lambda output: (output / 100).logit(1e-6)" in advice
    mended, messages = measured(
        nn.Sequential(linear(), PerCent()), sets, task="multilabel", logits=lambda output: (output / 100).logit(1e-6)
    )
    plain, _ = measured(linear(), sets, task="multilabel")
    assert not [m for m in messages if "model output" in m]
    np.testing.assert_array_equal(mended.images.prediction["original"], plain.images.prediction["original"])


class OfThree(TensorDataset):
    classes = ("cow", "dog", "emu")


def test_a_model_with_the_classes_in_another_order_is_refused():
    """Every answer of a perfect model was wrong."""
    model, loader = linear(), DataLoader(OfThree(IMAGE, LABEL, MASK), 8)
    model.class_names = ["emu", "cow", "dog"]
    with pytest.raises(ValueError, match=r"outputs emu, cow, dog.*logits=lambda output: output\[:, \[1, 2, 0\]\]"):
        measured(model, loader)
    mended, _ = measured(model, loader, logits=lambda output: output[:, [1, 2, 0]])
    plain, _ = measured(linear(), loader)
    np.testing.assert_array_equal(mended.images.prediction["original"], (plain.images.prediction["original"] + 2) % 3)
    assert measured(model, loader, class_names=["cow", "dog", "emu"])[0].class_names == ["cow", "dog", "emu"]
    model.class_names = ["Kuh", "Hund", "Emu"]
    assert measured(model, loader)[0].class_names == ["cow", "dog", "emu"]


class Softmax(nn.Module):
    def __init__(self, dtype):
        super().__init__()
        self.inner, self.dtype = linear(), dtype

    def forward(self, x):
        return self.inner(x).to(self.dtype).softmax(1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_softmax_in_low_precision_is_one(dtype):
    report, _ = measured(Softmax(dtype))
    assert report.settings["outputs"] == "probabilities"
    plain, _ = measured(linear())
    np.testing.assert_allclose(report.images.confidence["original"], plain.images.confidence["original"], atol=0.01)


def test_one_answer_to_everything_is_spoken_of():
    model = linear()
    with torch.no_grad():
        model[1].bias[2] = 100
    text = "model output: class 2 for all 24 images, whatever their label: it is not trained, or"
    assert [m for m in measured(model)[1] if text in m]
    assert not [m for m in measured(linear())[1] if "whatever their label" in m]


def test_ids_that_several_images_share_are_spoken_of():
    def items(name):
        return [{"image": IMAGE, "label": LABEL, "mask": MASK, "id": [name(i) for i in range(24)]}]

    spec = BatchSpec(image="image", label="label", mask="mask")
    text = "24 of 24 images have an id that another image of their class has"
    assert [m for m in measured(linear(), items(lambda i: "x"), spec=spec, ids="id")[1] if text in m]
    in_class = items(lambda i: f"{i // 3}.jpg")  # the same name in every class's folder
    assert not [m for m in measured(linear(), in_class, spec=spec, ids="id")[1] if "have an id" in m]


def test_bytes_as_floats_are_told_from_normalised_pixels():
    wide = [(IMAGE * 255, LABEL, MASK)]
    with pytest.warns(
        UserWarning, match=r"image: pixels reach far above 1 .*divide them by 255, or, .*std=\[1 / 255\]"
    ):
        evaluate_background_bias(linear().eval(), wide, variants=["only_fg"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluate_background_bias(linear().eval(), wide, variants=["only_fg"], mean=[0] * 3, std=[1 / 255] * 3)


@pytest.mark.parametrize(
    ("label", "mask", "why"),
    [
        (LABEL * 0, MASK, "the images are all of class 0, and so are all backgrounds: bring others"),
        (LABEL, 1 - MASK, "covers the pictures' edges and leaves no background: are they inverted"),
        (LABEL, MASK * 0, "all 24 masks are empty"),
        (torch.arange(24), MASK, "of 24 images 24 have no background of their own class and 0 none of a random class"),
    ],
)
def test_a_gap_that_is_not_known_is_told(label, mask, why):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 24))
    report, messages = measured(model, [(IMAGE, label, mask)])
    assert np.isnan(report.bg_gap.value)
    assert [m for m in messages if m.startswith("BG-Gap: it is not known") and why in m]
    assert not [m for m in measured(model)[1] if "BG-Gap" in m]


class Flipped(TensorDataset):
    """Turned left to right with a probability."""

    def __init__(self, *tensors, p):
        super().__init__(*tensors)
        self.p = p

    def __getitem__(self, index):
        image, label, mask = super().__getitem__(index)
        flip = torch.rand(()) < self.p
        return (image.flip(2), label, mask.flip(2)) if flip else (image, label, mask)


@pytest.mark.parametrize("p", [0.0, 0.5])
def test_a_loader_that_changes_its_images_is_told(p):
    report, messages = measured(linear(), DataLoader(Flipped(IMAGE, LABEL, MASK, p=p), 8))
    assert len([m for m in messages if "so it changes them at random" in m]) == (p > 0)
    assert report.settings.get("changing_images", False) is (p > 0)


def test_a_shuffled_loader_a_subset_and_label_sets_change_nothing():
    data = TensorDataset(IMAGE, LABEL, MASK)
    sets = [(IMAGE, torch.nn.functional.one_hot(LABEL, 3), MASK)]
    for loader, options in (
        (DataLoader(data, 5, shuffle=True), {}),
        (DataLoader(data, 4), {"max_batches": 3}),
        (DataLoader(data, 4), {"max_backgrounds": 6}),
        (sets, {"task": "multilabel"}),
        ([(IMAGE, LABEL, MASK)], {"backgrounds": torch.rand(4, 3, 8, 8)}),
    ):
        assert not [m for m in measured(linear(), loader, **options)[1] if "at random" in m]


def test_images_that_come_twice_are_told():
    again = torch.cat([torch.arange(24), torch.arange(3)])
    text = "image: 3 of 27 images are another one once more"
    twice = [(IMAGE[again], LABEL[again], MASK[again])]
    assert [m for m in measured(linear(), twice)[1] if m.startswith(text)]
    assert not [m for m in measured(linear())[1] if "once more" in m]
    units = [(*twice[0], again)]
    assert not [m for m in measured(linear(), units, unit=3)[1] if "once more" in m]
    relabelled = [(IMAGE[again], torch.cat([LABEL, (LABEL[:3] + 1) % 3]), MASK[again])]
    assert not [m for m in measured(linear(), relabelled)[1] if "once more" in m]


def test_an_unknown_option_is_named_with_a_near_one():
    with pytest.raises(TypeError, match=r"unexpected keyword argument 'nam'; did you mean name=\?"):
        evaluate_background_bias(linear(), [(IMAGE, LABEL, MASK)], nam="x")
    with pytest.raises(TypeError, match=r"unexpected keyword argument 'zzz'$"):
        evaluate_background_bias(linear(), [(IMAGE, LABEL, MASK)], zzz=1)


@pytest.mark.parametrize(("largest", "warned"), [(1.0, False), (0.8, False), (0.4, True), (3 / 255, True)])
def test_masks_that_reach_white_nowhere_are_told(largest, warned):
    """Levels of grey of a label map, divided by 255: objects were blended with the new backgrounds in silence."""
    _, messages = measured(linear(), [(IMAGE, LABEL, MASK * largest)])
    assert any("label numbers or levels of grey divided by 255" in text for text in messages) is warned


def test_pictures_under_two_labels_are_told():
    """No answer is right for both, and each may stand on its own background under the other's name."""
    again = [(torch.cat([IMAGE, IMAGE[:3]]), torch.cat([LABEL, (LABEL[:3] + 1) % 3]), torch.cat([MASK, MASK[:3]]))]
    _, messages = measured(linear(), again)
    assert any("6 of 27 images show a picture that is there with another label too" in text for text in messages)
    _, messages = measured(linear())
    assert not any("another label" in text for text in messages)


def test_pictures_under_two_masks_are_told():
    """An object that one of the masks leaves out stays in the background that another image may be given."""
    again = [(torch.cat([IMAGE, IMAGE[:3]]), torch.cat([LABEL, LABEL[:3]]), torch.cat([MASK, MASK[:3].roll(2, 2)]))]
    _, messages = measured(linear(), again)
    assert any("6 of 27 images show a picture that is there with another mask too" in text for text in messages)
    _, messages = measured(linear())
    assert not any("another mask" in text for text in messages)


def test_one_picture_in_a_hundred_under_two_labels_is_no_fault_of_the_data():
    image = torch.cat([IMAGE, torch.rand(95, *IMAGE.shape[1:], generator=torch.Generator().manual_seed(9)), IMAGE[:1]])
    label = torch.cat([LABEL, torch.arange(95) % 3, (LABEL[:1] + 1) % 3])
    mask = MASK[:1].expand(len(image), *MASK.shape[1:])
    _, messages = measured(linear(), [(image, label, mask)])
    assert not any("another label" in text for text in messages)


class Named(TensorDataset):
    classes = ("cow", "ship")


def test_a_data_set_with_other_classes_than_the_model_is_told():
    data = DataLoader(Named(IMAGE, LABEL % 2, MASK), batch_size=8)
    _, messages = measured(linear(), data)
    assert any("the data set has 2 classes (cow, ship, ...) and the model 3 outputs" in text for text in messages)
    _, messages = measured(linear(), data, class_names=["cow", "ship", "other"])
    assert not any("outputs, so that" in text for text in messages)


@pytest.mark.parametrize(
    ("batch", "options", "error", "text"),
    [
        (
            (IMAGE, MASK, LABEL),
            {},
            ValueError,
            r"mask: expected \(B, 1, H, W\), got int64 .*, as labels are; .*BatchSpec",
        ),
        ((IMAGE.where(IMAGE > 0.01, torch.nan), LABEL, MASK), {}, ValueError, r"image \(batch 0\): expected finite"),
        (
            (IMAGE.double(), LABEL, MASK),
            {},
            TypeError,
            "image: expected float32 as the model's parameters are, got float",
        ),
        ((IMAGE, LABEL, MASK), {"max_batches": 0}, ValueError, "max_batches: expected a whole number of at least 1"),
        (
            (IMAGE, LABEL, MASK),
            {"preprocess": lambda x: {"pixel_values": x}},
            TypeError,
            r"preprocess: .* got dict; of an",
        ),
        (
            (IMAGE, LABEL, MASK),
            {"preprocess": lambda x: x[0]},
            TypeError,
            r"preprocess: expected a function .* got float32",
        ),
        (
            (IMAGE, LABEL, MASK),
            {"logits": lambda z: z * 1j},
            ValueError,
            "model output: expected real logits, got complex",
        ),
        (
            (IMAGE, LABEL, MASK),
            {"layer": 1},
            TypeError,
            "layer: expected the name of a layer, got int 1, as model.named",
        ),
    ],
)
def test_what_does_not_fit_is_named(batch, options, error, text):
    with pytest.raises(error, match=text):
        measured(linear(), [batch], **options)


def test_shares_of_some_kind_are_told():
    """A softmax of which a class is left out: answers hold, but not how sure they are."""

    class Shares(nn.Module):
        def forward(self, image):
            return nn.functional.pad(image.mean((2, 3)), (0, 1)).softmax(1)[:, :3]

    _, messages = measured(Shares())
    assert any("all values lie in [0, 1] and are taken for logits" in text for text in messages)
    _, messages = measured(linear())
    assert not any("taken for logits" in text for text in messages)


def test_masks_of_other_pictures_are_told():
    """Names that begin with 0 on one side and with 1 on the other: every picture had its neighbour's mask."""
    generator = torch.Generator().manual_seed(0)
    corners = torch.randint(1, 21, (96, 2), generator=generator).tolist()
    image, mask = torch.rand(96, 3, 32, 32, generator=generator) * 0.2, torch.zeros(96, 1, 32, 32)
    for i, (y, x) in enumerate(corners):
        mask[i, :, y : y + 10, x : x + 10] = 1
        mask[i, :, y, x : x + 2] = 0
    image, label = image + 0.4 * mask, torch.arange(96) % 3
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3072, 3))
    wide = nn.functional.max_pool2d(mask, 13, 1, 6)
    neighbours = [(mask.roll(shift, 0), True) for shift in (1, -1)]
    for shown, is_told in ((mask, False), *neighbours, (mask[:1].expand_as(mask), False), (wide, False)):
        _, messages = measured(model, DataLoader(TensorDataset(image, label, shown), 32))
        assert any("are they masks of other pictures" in text for text in messages) is is_told
