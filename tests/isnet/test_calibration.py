"""The relevance range against a hand computation, and what measuring leaves behind."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from torch_bgdebias.batch import BatchSpec
from torch_bgdebias.isnet import ISNet, calibrate_relevance_range
from torch_bgdebias.isnet.calibration import calibrate_relevance_ranges, range_of_sums, relevance_sums
from torch_bgdebias.subsets import spread_positions


def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(5 * 36, 4)
    )


def images(count: int = 10) -> torch.Tensor:
    return torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def loader(count: int = 10, batch_size: int = 4) -> DataLoader:
    return DataLoader(TensorDataset(images(count), torch.zeros(count)), batch_size=batch_size)


def expected_range(sums: torch.Tensor) -> tuple[float, float]:
    mu, sd = sums.mean().item(), sums.std(correction=0).item()
    low = max(mu / 5, mu - 3 * sd)
    return low, min(25 * low, mu + 3 * sd)


@pytest.mark.parametrize("variant", ["selective", "original"])
def test_equals_the_formula(variant):
    net = model()
    isnet = ISNet(net, variant=variant)
    relevance = ISNet(net.eval(), variant=variant).explain(images()).relevance
    sums = torch.stack([r.abs().double().sum() for sample in relevance for r in sample])
    assert calibrate_relevance_range(isnet, loader()) == pytest.approx(expected_range(sums), rel=1e-5)
    some = sums.unflatten(0, (10, -1))[spread_positions(10, 8)].flatten()
    assert calibrate_relevance_range(isnet, loader(), max_batches=2) == pytest.approx(expected_range(some), rel=1e-5)


@pytest.mark.parametrize(
    ("sums", "expected"),
    [
        ([10.0, 10.0, 10.0], (10.0, 10.0)),  # no spread
        ([1.0, 100.0, 1.0, 1.0], (25.75 / 5, 25 * 25.75 / 5)),  # wide: both other bounds
        ([9.0, 11.0], (7.0, 13.0)),  # narrow: three deviations either way
    ],
)
def test_both_bounds(sums, expected):
    values = torch.tensor(sums)
    measured_range = range_of_sums(len(sums), values.sum().item(), values.square().sum().item())
    low, high = expected_range(values)
    assert measured_range == pytest.approx((low, high))
    if sums[1] != 100.0:
        assert measured_range == pytest.approx(expected)
    else:
        assert measured_range[0] == pytest.approx(expected[0])
        assert measured_range[1] == pytest.approx(min(expected[1], high))


def test_sums_are_one_per_sample_and_map():
    relevance = torch.randn(3, 2, 3, 4, 5)
    sums = relevance_sums(relevance)
    assert sums.shape == (6,)
    assert sums.dtype == torch.float64
    assert sums[3].item() == pytest.approx(relevance[1, 1].abs().sum().item(), rel=1e-6)


def test_hidden_layers_have_ranges_of_their_own():
    net = model()
    isnet = ISNet(net, deep_supervision=["0", "2"])
    ranges = calibrate_relevance_ranges(isnet, loader())
    assert set(ranges) == {"input", "0", "2"}
    hidden = ISNet(net.eval(), deep_supervision=["2"]).explain(images()).hidden["2"]
    sums = hidden.abs().double().sum((1, 2, 3, 4))
    assert ranges["2"] == pytest.approx(expected_range(sums), rel=1e-5)
    assert ranges["input"] == calibrate_relevance_range(isnet, loader())


def test_leaves_the_model_as_it_was():
    net = model()
    net[3].eval()  # a layer that the user has frozen
    before = {name: value.clone() for name, value in net.state_dict().items()}
    modes = [m.training for m in net.modules()]
    with torch.no_grad():
        inside = calibrate_relevance_range(ISNet(net), loader())
    with torch.inference_mode():
        inference = calibrate_relevance_range(ISNet(net), loader())
    assert inside == inference == calibrate_relevance_range(ISNet(net), loader())
    assert [m.training for m in net.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(p.grad is None for p in net.parameters())


def test_reads_any_batch():
    batches = [{"pixels": images()[:5], "y": 0}, {"pixels": images()[5:], "y": 1}]
    spec = BatchSpec(image="pixels", label="y", mask=None)
    measured_range = calibrate_relevance_range(ISNet(model()), batches, spec=spec, device="cpu")
    assert measured_range == pytest.approx(calibrate_relevance_range(ISNet(model()), loader()), rel=1e-6)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="at least one image"):
        calibrate_relevance_range(ISNet(model()), [])
    with pytest.raises(ValueError, match="expected some relevance"):
        calibrate_relevance_range(ISNet(model()), [(torch.zeros(2, 3, 8, 8),)])
    with pytest.raises(KeyError, match="batch has no image at 0"):
        calibrate_relevance_range(ISNet(model()), [{"pixels": images()}])
    with pytest.raises(TypeError, match="image: expected a floating point tensor"):
        calibrate_relevance_range(ISNet(model()), [((images() * 255).byte(),)])
    broken = images()
    broken[1] = math.nan
    with pytest.raises(ValueError, match="relevance: expected finite values"):
        calibrate_relevance_range(ISNet(model()), [(broken,)])


def test_some_batches_of_a_sorted_loader_are_spread_over_its_classes():
    """They were the first ones: of one class alone."""
    label = torch.arange(40) // 20
    data = TensorDataset(images(40) * (1 + 3 * label[:, None, None, None]), label)
    data.targets = label
    net = ISNet(model())
    some = calibrate_relevance_range(net, DataLoader(data, batch_size=4), max_batches=2)
    spread = torch.tensor([round(i * 39 / 7) for i in range(8)])
    by_hand = DataLoader(TensorDataset(data.tensors[0][spread], label[spread]), batch_size=4)
    assert some == calibrate_relevance_range(net, by_hand)
    first = calibrate_relevance_range(net, DataLoader(TensorDataset(data.tensors[0][:8], label[:8]), batch_size=4))
    assert some != first
