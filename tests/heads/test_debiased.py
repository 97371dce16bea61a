"""A network that reads the background, and its last layer fitted anew."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from torch_bgdebias import BackgroundBank, BackgroundSwap
from torch_bgdebias.heads import fit_debiased_head

SIDE = 8


class Means(nn.Module):
    """Embedding: mean colour of the middle (the object) and of the frame (the background)."""

    def __init__(self, classes: int = 2) -> None:
        super().__init__()
        self.fc = nn.Linear(6, classes)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        middle = image[:, :, 2:6, 2:6].mean((2, 3))
        frame = (image.sum((2, 3)) - 16 * middle) / (SIDE * SIDE - 16)
        return self.fc(torch.cat([middle, frame], dim=1))


def scenes(images: int = 48, seed: int = 0, backgrounds: str = "own") -> TensorDataset:
    """Two classes: a reddish or a bluish object (noisy) on a dark or a bright background (clean)."""
    generator = torch.Generator().manual_seed(seed)
    label = torch.arange(images) % 2
    mask = torch.zeros(images, 1, SIDE, SIDE)
    mask[:, :, 2:6, 2:6] = 1
    behind = label if backgrounds == "own" else 1 - label
    background = (0.2 + 0.6 * behind.float())[:, None, None, None].expand(-1, 3, SIDE, SIDE)
    colour = 0.5 + 0.15 * torch.randn(images, 3, 1, 1, generator=generator).clamp(-1, 1)
    colour[:, 0] += 0.2 * (1 - 2 * label.float())[:, None, None]
    image = (mask * colour + (1 - mask) * background).clamp(0, 1)
    return TensorDataset(image, label, mask)


def accuracy(model: nn.Module, data: TensorDataset) -> float:
    image, label, _ = data.tensors
    with torch.no_grad():
        return float((model(image).argmax(1) == label).float().mean())


def biased() -> Means:
    model = Means()
    with torch.no_grad():
        model.fc.weight.zero_()
        model.fc.weight[1, 3:] = 10.0
        model.fc.bias.copy_(torch.tensor([15.0, 0.0]))
    return model


def shuffled(data: TensorDataset) -> DataLoader:
    return DataLoader(data, batch_size=16, shuffle=True, generator=torch.Generator().manual_seed(0))


def test_a_background_reader_reads_the_object_afterwards():
    model, test = biased(), scenes(200, seed=1, backgrounds="other")
    assert accuracy(model, scenes()) == 1.0
    assert accuracy(model, test) == 0.0
    parameter = model.fc.weight
    fitted = fit_debiased_head(model, shuffled(scenes()), copies=4, original_weight=0)
    assert accuracy(model, test) == 0.0, "nothing changes before apply_"
    assert fitted.apply_(model) is model
    assert model.fc.weight is parameter
    assert accuracy(model, test) > 0.8
    assert len(fitted.scores) == 5
    best = max(fitted.scores, key=lambda score: score.both)
    near = [score.penalty for score in fitted.scores if score.both >= best.both - best.error]
    assert fitted.penalty == max(near)
    assert best.both == pytest.approx(best.swapped), "originals weigh nothing here"


def test_both_layers_are_judged_and_the_temperature_changes_no_answer():
    model = biased()
    fitted = fit_debiased_head(model, shuffled(scenes()))
    assert fitted.before.original.accuracy == 1.0
    assert fitted.before.swapped.accuracy < 0.8, "half of the backgrounds are the other class's"
    chosen = next(score for score in fitted.scores if score.penalty == fitted.penalty)
    assert fitted.after.original.accuracy == pytest.approx(chosen.original, abs=0.03), "the classes are of one size"
    assert fitted.after.swapped.accuracy == pytest.approx(chosen.swapped, abs=0.03)
    plain = fit_debiased_head(model, shuffled(scenes()), calibrate=False)
    assert plain.temperature == 1.0 != fitted.temperature
    assert torch.allclose(fitted.head.weight * fitted.temperature, plain.head.weight)
    assert torch.allclose(fitted.head.bias * fitted.temperature, plain.head.bias)
    assert plain.after.swapped.accuracy == fitted.after.swapped.accuracy


def test_a_best_penalty_at_the_end_of_the_range_is_told_where_it_is_no_chance():
    wide = scenes(400)
    with pytest.warns(UserWarning, match=r"the best one, 3 .*is the weakest .*\(3 to 3000\)") as caught:
        fitted = fit_debiased_head(biased(), shuffled(wide), penalties=(3.0, 3000.0), original_weight=0)
    assert fitted.best_at_end == "weakest"
    (message,) = [str(warning.message) for warning in caught]
    assert message.endswith("penalties=(0.3, 1, 3, 3000) (--penalties 0.3,1,3,3000)")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert fit_debiased_head(biased(), shuffled(wide), penalties=(0.1, 0.10001)).best_at_end is None


def test_another_number_of_classes_gets_a_new_layer():
    model = Means(classes=1000)
    fitted = fit_debiased_head(model, shuffled(scenes()), penalties=(0.1,))
    assert fitted.scores == ()
    assert (fitted.temperature, fitted.before, fitted.after) == (1.0, None, None)
    fitted.apply_(model)
    assert model.fc.out_features == 2
    assert model(torch.rand(3, 3, SIDE, SIDE)).shape == (3, 2)


def test_the_same_seed_gives_the_same_head_and_the_global_generator_is_left_alone():
    data = [scenes().tensors]
    models = [biased() for _ in range(3)]
    state = torch.get_rng_state()
    fitted = [fit_debiased_head(m, data, penalties=(0.1,), seed=s) for m, s in zip(models, (3, 3, 4), strict=True)]
    heads = [one.head.weight for one in fitted]
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


def test_a_bank_as_source_and_modes_given_back():
    model = nn.Sequential(Means(), nn.Dropout())
    model.train()
    model[1].eval()
    bank = BackgroundBank(torch.rand(6, 3, SIDE, SIDE))
    swap = BackgroundSwap(bank, different_class=False)
    fit_debiased_head(model, DataLoader(scenes(), 16), swap, layer="0.fc")
    assert model.training
    assert not model[1].training


def test_one_class_a_batch_is_refused_and_the_advice_works():
    image, label, mask = scenes().tensors
    order = torch.argsort(label, stable=True)
    by_class = DataLoader(TensorDataset(image[order], label[order], mask[order]), batch_size=24)
    with pytest.raises(
        ValueError, match="one class alone around 48 of 48 images: pass a loader with shuffle=True, or a"
    ):
        fit_debiased_head(biased(), by_class)
    fit_debiased_head(biased(), shuffled(scenes()))
    fit_debiased_head(biased(), by_class, BackgroundSwap(BackgroundBank(torch.rand(4, 3, 8, 8)), different_class=False))


def test_a_sorted_loader_with_one_mixed_batch_is_refused_too():
    image, label, mask = scenes().tensors
    order = torch.argsort(label, stable=True)
    by_class = DataLoader(TensorDataset(image[order], label[order], mask[order]), batch_size=10)
    with pytest.raises(ValueError, match="one class alone around 38 of 48 images"):
        fit_debiased_head(biased(), by_class)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_masks_without_object_or_background_are_refused(value):
    image, label, mask = scenes().tensors
    with pytest.raises(ValueError, match="got 48 of 48 masks that are empty or full"):
        fit_debiased_head(biased(), [(image, label, torch.full_like(mask, value))])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"copies": 0}, "copies: expected a whole number of at least 1, got 0"),
        ({"penalties": ()}, "penalties: expected numbers above 0"),
        ({"original_weight": -1}, "original_weight: expected a number of at least 0"),
        ({"folds": 1}, "folds: expected a whole number of at least 2, got 1"),
        ({"crop_area": 0}, "crop_area: expected a share in"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        fit_debiased_head(biased(), [scenes().tensors], **options)


def test_a_head_for_another_model_is_refused():
    fitted = fit_debiased_head(biased(), shuffled(scenes()), penalties=(0.1,))
    with pytest.raises(LookupError, match="layer 'fc' is not in Sequential"):
        fitted.apply_(nn.Sequential(nn.Linear(6, 2)))
    other = biased()
    other.fc = nn.Linear(7, 2)
    with pytest.raises(ValueError, match=r"expected an nn.Linear\(6, ...\) called 'fc'"):
        fitted.apply_(other)


def test_features_without_the_object_are_warned_of():
    """The network sees the frame alone: no last layer can find the object in that."""

    class Frame(Means):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            blind = image.clone()
            blind[:, :, 2:6, 2:6] = 0
            return super().forward(blind)

    with pytest.warns(UserWarning, match="cannot tell the 2 classes before other backgrounds: .* where chance is 50%"):
        fit_debiased_head(Frame(), shuffled(scenes(200)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit_debiased_head(Means(), shuffled(scenes(200)))


def test_one_logit_stays_one_logit():
    two, one = Means(), Means(classes=1)
    fit_debiased_head(two, shuffled(scenes()), penalties=(0.1,), num_classes=2).apply_(two)
    parameter = one.fc.weight
    fit_debiased_head(one, shuffled(scenes()), penalties=(0.1,), num_classes=2).apply_(one)
    assert one.fc.weight is parameter
    image = scenes(40, seed=1).tensors[0]
    with torch.no_grad():
        logits = two(image)
        torch.testing.assert_close(one(image)[:, 0], logits[:, 1] - logits[:, 0], atol=1e-4, rtol=1e-4)
