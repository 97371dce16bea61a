"""Adversarial backgrounds against a double loop, whatever the size of the passes, and their counting."""

from __future__ import annotations

import copy
import pickle
from types import SimpleNamespace

import hostile
import pytest
import torch
from torch import nn

from torch_bgdebias.backgrounds import BackgroundBank
from torch_bgdebias.metrics import AdversarialBackgroundAccuracy, adversarial_background_accuracy

B, N, K = 9, 13, 3


def _model() -> nn.Module:
    torch.manual_seed(3)
    layers = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(64, K)]
    model = nn.Sequential(*layers)
    model[-1].weight.data *= 4
    return model.train()


def _data(seed: int = 0):
    g = torch.Generator().manual_seed(seed)
    image, mask = torch.rand(B, 3, 6, 6, generator=g), torch.zeros(B, 1, 6, 6)
    for i in range(B):
        mask[i, :, 0:6, 0 : 1 + i % 6] = 0.9  # from a strip to (nearly) everything
    mask[4] = 0
    with torch.no_grad():
        label = _model().eval()(image).argmax(1)  # right on the image itself: what changes it is the background
    return image, mask, label, torch.rand(N, 3, 6, 6, generator=g)


def _double_loop(model, image, mask, label, backgrounds):
    """One composite at a time, as the challenge's definition reads."""
    fooled_by, predicted, tried = [], [], []
    model.eval()
    with torch.no_grad():
        for i in range(len(image)):
            who, said, count = -1, -1, 0
            for j in range(len(backgrounds)):
                if mask[i].max() == 0:
                    break
                count += 1
                composite = mask[i] * image[i] + (1 - mask[i]) * backgrounds[j]
                answer = int(model(composite[None]).argmax())
                if answer != int(label[i]):
                    who, said = j, answer
                    break
            fooled_by.append(who)
            predicted.append(said)
            tried.append(count)
    return fooled_by, predicted, tried


@pytest.mark.parametrize("chunk", [1, 2, 7, 40, 1000])
def test_matches_a_double_loop(chunk: int) -> None:
    image, mask, label, backgrounds = _data()
    model = _model()
    result = adversarial_background_accuracy(model, image, mask, label, backgrounds, chunk=chunk)
    assert all(module.training for module in model.modules())
    fooled_by, predicted, tried = _double_loop(_model(), image, mask, label, backgrounds)
    assert result.fooled_by.tolist() == fooled_by
    assert result.predicted.tolist() == predicted
    assert result.tried.tolist() == tried
    robust = [w < 0 and i != 4 for i, w in enumerate(fooled_by)]
    assert 0 < sum(robust) < B - 1  # the case has both kinds
    assert result.robust.tolist() == robust
    assert result.valid.tolist() == [i != 4 for i in range(B)]
    assert result.accuracy == pytest.approx(sum(robust) / (B - 1))


def test_a_fooled_foreground_is_not_shown_again() -> None:
    image, mask, label, backgrounds = _data()

    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.seen, self.largest = 0, 0

        def forward(self, x):
            self.seen += len(x)
            self.largest = max(self.largest, len(x))
            return torch.tensor([[0.0, 1.0]]).expand(len(x), 2)

    model = Counting()
    adversarial_background_accuracy(model, image, mask, torch.zeros_like(label), backgrounds, chunk=B - 1)
    assert model.seen == B - 1  # all fooled by the first background
    model = Counting()
    result = adversarial_background_accuracy(model, image, mask, torch.ones_like(label), backgrounds, chunk=5)
    assert model.seen == (B - 1) * N
    assert model.largest <= 5
    assert result.accuracy == 1


def test_known_limits() -> None:
    image, mask, label, backgrounds = _data()
    whole = torch.ones_like(mask)
    assert adversarial_background_accuracy(_model(), image, whole, label, backgrounds).accuracy == 1
    assert adversarial_background_accuracy(_model(), image, whole, (label + 1) % K, backgrounds).accuracy == 0
    one = adversarial_background_accuracy(_model(), image, mask, label, backgrounds[:1]).accuracy
    assert one >= adversarial_background_accuracy(_model(), image, mask, label, backgrounds).accuracy
    empty = adversarial_background_accuracy(_model(), image, torch.zeros_like(mask), label, backgrounds)
    assert torch.isnan(empty.accuracy)
    assert not empty.robust.any()
    assert empty.tried.sum() == 0


def test_banks_of_every_kind_give_the_same() -> None:
    image, mask, label, _ = _data()
    raw = torch.randint(0, 256, (N, 3, 6, 6), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    mean, std = torch.tensor([0.4, 0.5, 0.6]), torch.tensor([0.2, 0.3, 0.25])
    image, ready = ((x - mean[:, None, None]) / std[:, None, None] for x in (image, raw.float() / 255))
    expected = adversarial_background_accuracy(_model(), image, mask, label, ready)
    for bank in (
        BackgroundBank(raw, mean=mean, std=std),
        SimpleNamespace(images=raw, labels=None, mean=mean.tolist(), std=std.tolist()),
        BackgroundBank(ready),
    ):
        result = adversarial_background_accuracy(_model(), image, mask, label, bank, chunk=8)
        assert torch.equal(result.fooled_by, expected.fooled_by)
    large = ready.repeat_interleave(2, 2).repeat_interleave(2, 3)
    resized = torch.nn.functional.interpolate(large, (6, 6), mode="bilinear", antialias=True)
    result = adversarial_background_accuracy(_model(), image, mask, label, large)
    assert torch.equal(
        result.fooled_by, adversarial_background_accuracy(_model(), image, mask, label, resized).fooled_by
    )


def test_predict_maps_the_answers() -> None:
    image, mask, _, backgrounds = _data()
    result = adversarial_background_accuracy(
        _model(), image, mask, torch.zeros(B, dtype=torch.int64), backgrounds,
        predict=lambda logits: torch.where(logits.argmax(1) >= 0, -1, 0),
    )  # fmt: skip
    assert result.accuracy == 0
    assert (result.predicted == -1).all()
    assert result.fooled_by[result.valid].tolist() == [0] * (B - 1)


@pytest.mark.parametrize("average", ["micro", "macro", "none"])
def test_class_adds_up_over_batches(average: str) -> None:
    image, mask, label, backgrounds = _data()
    bank = BackgroundBank(backgrounds)
    metric = AdversarialBackgroundAccuracy(bank, K + 1, average, chunk=6)
    for start in range(0, B, 4):
        part = slice(start, start + 4)
        metric.update(_model(), image[part], mask[part], label[part])
    once = adversarial_background_accuracy(_model(), image, mask, label, bank)
    groups = [once.valid & (label == c) for c in range(K + 1)]
    per_class = torch.stack([once.robust[g].float().mean() for g in groups])
    expected = {"micro": once.accuracy, "macro": per_class.nanmean(), "none": per_class}[average]
    torch.testing.assert_close(metric.compute(), expected, equal_nan=True)
    tried = torch.stack([once.tried[g].float().mean() for g in groups])
    expected = {"micro": once.tried[once.valid].float().mean(), "macro": tried.nanmean(), "none": tried}[average]
    torch.testing.assert_close(metric.tried(), expected, equal_nan=True)
    fooled = once.fooled_by[once.fooled_by >= 0]
    assert torch.equal(metric.fooled_by(), torch.bincount(fooled, minlength=N))
    assert metric.without_foreground() == 1


def test_copies_share_the_bank() -> None:
    image, mask, label, backgrounds = _data()
    metric = AdversarialBackgroundAccuracy(BackgroundBank(backgrounds))
    value = metric(_model(), image, mask, label)
    assert value == metric.compute()
    for copied in (metric.clone(), copy.deepcopy(metric)):
        assert copied.bank is metric.bank
        assert copied.compute() == value
    assert pickle.loads(pickle.dumps(metric)).compute() == value
    metric.reset()
    with pytest.warns(UserWarning, match="no valid sample was seen"):
        assert torch.isnan(metric.compute())


def test_autocast_and_the_mode_after_an_error() -> None:
    image, mask, label, backgrounds = _data()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = adversarial_background_accuracy(_model(), image, mask, label, backgrounds)
    assert result.accuracy.dtype == torch.float32
    model = _model()
    with pytest.raises(RuntimeError):
        adversarial_background_accuracy(model, image[..., :5], mask[..., :5], label, backgrounds)
    assert all(module.training for module in model.modules())


def test_bad_input() -> None:
    image, mask, label, backgrounds = _data()
    model = _model()
    with pytest.raises(TypeError, match=r"bank: expected uint8 or float images .* got SimpleNamespace"):
        adversarial_background_accuracy(model, image, mask, label, SimpleNamespace(labels=None))
    with pytest.raises(TypeError, match=r"bank: expected uint8 or float images .* got int64"):
        adversarial_background_accuracy(model, image, mask, label, backgrounds.long())
    with pytest.raises(ValueError, match="bank: expected at least one image, got none"):
        AdversarialBackgroundAccuracy(backgrounds[:0])
    with pytest.raises(ValueError, match="bank: expected 3 channels like the images, got 1"):
        adversarial_background_accuracy(model, image, mask, label, backgrounds[:, :1])
    with pytest.raises(ValueError, match="chunk: expected a whole number of at least 1, got 0"):
        adversarial_background_accuracy(model, image, mask, label, backgrounds, chunk=0)
    with pytest.raises(ValueError, match=r"mask: expected shape \(9, 1, 6, 6\)"):
        adversarial_background_accuracy(model, image, mask[:2], label, backgrounds)
    with pytest.raises(ValueError, match=r"label: expected shape \(9,\)"):
        adversarial_background_accuracy(model, image, mask, label[:2], backgrounds)
    with pytest.raises(ValueError, match=r"model output: expected logits \(\d+, K\), K > 1"):
        adversarial_background_accuracy(nn.Flatten(0), image, mask, label, backgrounds)
    with pytest.raises(TypeError, match=r"predict\(logits\): expected integer classes"):
        adversarial_background_accuracy(model, image, mask, label, backgrounds, predict=lambda x: x[:, 0])


@hostile.wrong(image=hostile.IMAGES, mask=hostile.MASKS, label=hostile.LABELS)
def test_wrong_batches_are_named(wrong):
    image, mask, label, backgrounds = _data()
    model = _model()

    def measured(image, mask, label):
        return adversarial_background_accuracy(model, image, mask, label, backgrounds)

    wrong.refused_by(measured, image=image, mask=mask, label=label)
