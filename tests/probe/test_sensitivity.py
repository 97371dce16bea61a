"""`mask_sensitivity`: models whose gap must move with the masks, and one whose gap must not."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from torch_bgdebias.masks import Licence, MadeMasks
from torch_bgdebias.masks.damage import Boxed, Exchanged, Grown, Made, Shrunk
from torch_bgdebias.probe import EvaluationSettings, evaluate_background_bias, mask_sensitivity
from torch_bgdebias.probe.page.sensitivity import sensitivity_chart
from torch_bgdebias.probe.report import report_html


def data(count=24, seed=0):
    """Objects are red or green squares, backgrounds blue or grey by class, with a frame of the object's own colour."""
    generator = torch.Generator().manual_seed(seed)
    label = torch.arange(count) % 2
    image = torch.rand(count, 3, 16, 16, generator=generator) * 0.1
    image[label == 0, 2] += 0.8
    image[label == 1] += 0.4
    mask = torch.zeros(count, 1, 16, 16)
    mask[:, :, 5:11, 4:10] = 1
    for i in range(count):
        image[i, :, 5:11, 4:10] = 0
        image[i, int(label[i]), 5:11, 4:10] = 0.9
    return image, label, mask


class Corner(nn.Module):
    """Looks at the middle (``at`` 7) or at a corner (0) alone."""

    def __init__(self, at):
        super().__init__()
        self.at = at

    def forward(self, image):
        pixel = image[:, :, self.at, self.at]
        if self.at:
            return torch.stack([pixel[:, 0], pixel[:, 1]], 1)
        return torch.stack([pixel[:, 2] - pixel[:, 0], pixel[:, 0] * 0 + 0.2], 1)


def loader(**options):
    return DataLoader(TensorDataset(*data()), 8, **options)


def test_a_model_of_the_background_loses_its_gap_where_masks_take_the_background_along():
    damages = [Grown(0.1), Grown(0.5), Shrunk(0.1), Boxed()]
    result = mask_sensitivity(Corner(0), loader(), damages=damages)
    gaps = {row.name: row.figures["bg_gap"] for row in result.rows}
    plain = evaluate_background_bias(Corner(0), loader(), variants=["mixed_same", "mixed_rand"])
    assert gaps["as given"] == plain.bg_gap.value > 0.3
    assert gaps["grown by 10 %"] == gaps["boxes"] == gaps["as given"]
    assert math.isnan(gaps["grown by 50 %"]), "the masks hold all of the picture: there is no background"
    assert [round(row.overlap, 2) for row in result.rows] == [1.0, 0.36, 0.14, 0.11, 1.0]
    assert {row.images for row in result.rows} == {24}
    assert math.isnan(result.rows[0].chance)
    assert 0 <= result.rows[1].chance < 0.3


def test_a_model_of_the_object_has_a_gap_of_the_masks_alone():
    result = mask_sensitivity(Corner(7), loader(), damages=[Shrunk(0.1), Exchanged(0.5)])
    assert result.rows[0].figures["bg_gap"] == 0
    assert result.change(result.rows[2]) == 0, "all masks lie at the same place"


def test_order_and_the_users_own_names_do_not_matter():
    image, label, mask = data()
    plain = mask_sensitivity(Corner(0), loader(), damages=[Grown(0.1)])
    turned = [(image.flip(0), label.flip(0), mask.flip(0))]
    other = mask_sensitivity(Corner(0), turned, damages=[Grown(0.1)])
    assert [row.figures for row in other.rows] == [row.figures for row in plain.rows]
    named = [{"x": image, "y": label, "m": mask, "n": [f"{i}" for i in range(24)]}]
    settings = EvaluationSettings(
        spec=evaluation_spec(), ids="n", scores={"mask share": lambda model, image, mask, label: mask.mean((1, 2, 3))}
    )
    result = mask_sensitivity(Corner(0), named, settings=settings, damages=[Grown(0.1)], adversarial=6)
    shares = [row.figures["mask share"] for row in result.rows]
    assert shares == pytest.approx([36 / 256, 100 / 256])
    assert {"bg_gap", "adversarial_accuracy", "mask share"} == set(result.rows[1].figures)
    assert result.rows[0].figures["adversarial_accuracy"] == 0, "a corner tells nothing of the object"


def evaluation_spec():
    from torch_bgdebias import BatchSpec

    return BatchSpec(image="x", label="y", mask="m")


def test_a_maker_sees_pictures_as_they_were_before_normalisation_and_each_once():
    image, label, mask = data()
    seen = []

    class Bright:
        name, licence, takes, needs = "bright", Licence("none", "a test"), frozenset(), frozenset()

        def __call__(self, images, hints):
            seen.append(images)
            return MadeMasks((images[:, :2].amax(1) > 0.8).float(), torch.ones(len(images)))

    settings = EvaluationSettings(mean=(0.5,) * 3, std=(0.25,) * 3)
    batch = ((image - 0.5) / 0.25, label, mask)
    result = mask_sensitivity(Corner(0), [batch], settings=settings, damages=[Made(Bright())], quality=1.0)
    assert result.rows[1].overlap == 1
    assert len(seen) == 1
    torch.testing.assert_close(seen[0], image)
    assert result.rows[1].figures == result.rows[0].figures
    assert "right to ± 0.0 points" in result.sentence()


def test_the_page_has_a_section():
    result = mask_sensitivity(Corner(0), loader(), damages=[Grown(0.1), Grown(0.5)], quality=0.2)
    report = evaluate_background_bias(Corner(0), loader(), variants=["mixed_same", "mixed_rand"])
    page = report_html([report], masks=result)
    assert "How good must the masks be?" in page
    assert "masks of this quality it cannot be trusted" in page
    assert "grown by 50 %" in page
    assert "How good must the masks be?" not in report_html([report])
    dots = [shape for shape in sensitivity_chart(result).shapes if shape.kind == "dot"]
    assert dots[0].text == "as given: +0.0 points"
    assert len(dots) == 2, "what is not known has no place"
    assert dots[0].at[0] > dots[1].at[0], "worse masks stand to the left"


def test_what_cannot_be_measured_is_refused():
    for settings, text in (
        (EvaluationSettings(ready="variants"), "ready: expected variants that are made here"),
        (EvaluationSettings(task="binary"), "expected one class an image"),
    ):
        with pytest.raises(ValueError, match=text):
            mask_sensitivity(Corner(0), loader(), settings=settings)
    with pytest.raises(ValueError, match="adversarial: expected a whole number of at least 0"):
        mask_sensitivity(Corner(0), loader(), adversarial=-1)
    full = [(data()[0], data()[1], torch.ones(24, 1, 16, 16))]
    with pytest.raises(ValueError, match="adversarial: no image has a background beside its object"):
        mask_sensitivity(Corner(0), full, damages=[], adversarial=3)


def test_shares_of_classes_are_taken_as_the_largest():
    image, label, mask = data()
    shares = torch.nn.functional.one_hot(label, 2) * 0.8 + 0.1
    result = mask_sensitivity(Corner(0), [(image, shares, mask)], damages=[Grown(0.1)])
    plain = mask_sensitivity(Corner(0), loader(), damages=[Grown(0.1)])
    assert [row.figures["bg_gap"] for row in result.rows] == [row.figures["bg_gap"] for row in plain.rows]
