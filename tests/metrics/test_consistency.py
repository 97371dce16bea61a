"""The torchmetrics classes against plain loops, over uneven batches, absent classes and two processes."""

from __future__ import annotations

import os
import pickle
import warnings

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor

from torch_bgdebias.metrics import (
    BackgroundGap,
    DecisionConsistency,
    FeatureConsistency,
    background_gap,
    decision_consistency,
    feature_consistency,
)

K, N, D = 5, 37, 6  # class 4 never occurs, batches of 8 leave a last one of 5
AVERAGES = ("micro", "macro", "none")


def _data(seed: int = 0) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(seed)
    data = {name: torch.randn(N, K, generator=g) for name in ("original", "same", "rand")}
    data |= {name: torch.randn(N, D, generator=g) for name in ("embedding", "moved")}
    data["target"] = torch.randint(0, K - 1, (N,), generator=g)
    data |= {name: torch.rand(N, generator=g) > 0.3 for name in ("valid_same", "valid_rand")}
    return data


def _update(metric, d: dict[str, Tensor]) -> None:
    if isinstance(metric, BackgroundGap):
        metric.update(d["same"], d["rand"], d["target"], valid_same=d["valid_same"], valid_rand=d["valid_rand"])
    elif isinstance(metric, DecisionConsistency):
        metric.update(d["original"], d["rand"], d["target"], valid=d["valid_rand"])
    else:
        metric.update(d["embedding"], d["moved"], d["target"], valid=d["valid_rand"])


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else float("nan")


def _oracle(name: str, d: dict[str, Tensor], average: str) -> np.ndarray:
    """Image by image, in Python numbers."""

    def of_class(chosen: int | None) -> float:
        same, rand, agreeing, cosine = [], [], [], []
        for i in range(N):
            if chosen is not None and int(d["target"][i]) != chosen:
                continue
            if d["valid_same"][i]:
                same.append(float(int(d["same"][i].argmax()) == int(d["target"][i])))
            if d["valid_rand"][i]:
                rand.append(float(int(d["rand"][i].argmax()) == int(d["target"][i])))
                agreeing.append(float(int(d["rand"][i].argmax()) == int(d["original"][i].argmax())))
                a, b = d["embedding"][i].numpy().astype(float), d["moved"][i].numpy().astype(float)
                cosine.append(float(a @ b / np.sqrt((a @ a) * (b @ b))))
        return {"gap": _mean(same) - _mean(rand), "decision": _mean(agreeing), "feature": _mean(cosine)}[name]

    if average == "micro":
        return np.array(of_class(None))
    per_class = np.array([of_class(c) for c in range(K)])
    return np.array(np.nanmean(per_class)) if average == "macro" else per_class


METRICS = {"gap": BackgroundGap, "decision": DecisionConsistency, "feature": FeatureConsistency}


@pytest.mark.parametrize("average", AVERAGES)
@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("batch", [1, 8, N])
def test_matches_a_loop_over_images(name: str, average: str, batch: int) -> None:
    d = _data()
    metric = METRICS[name](num_classes=K, average=average)
    for start in range(0, N, batch):
        _update(metric, {k: v[start : start + batch] for k, v in d.items()})
    expected = _oracle(name, d, average)
    np.testing.assert_allclose(metric.compute().numpy(), expected, atol=1e-6, equal_nan=True)
    if average == "none":
        assert np.isnan(expected[K - 1])
        assert not np.isnan(expected[: K - 1]).any()


@pytest.mark.parametrize("average", AVERAGES)
def test_functions_equal_classes(average: str) -> None:
    d = _data(1)
    kw = {"num_classes": K, "average": average}
    results = [
        background_gap(d["same"], d["rand"], d["target"], valid_same=d["valid_same"], valid_rand=d["valid_rand"], **kw),
        decision_consistency(d["original"], d["rand"], d["target"], valid=d["valid_rand"], **kw),
        feature_consistency(d["embedding"], d["moved"], d["target"], valid=d["valid_rand"], **kw),
    ]
    for cls, result in zip(METRICS.values(), results, strict=True):
        metric = cls(**kw)
        _update(metric, d)
        torch.testing.assert_close(metric.compute(), result, equal_nan=True, rtol=0, atol=0)


def test_gap_of_separate_loaders() -> None:
    d = _data()
    together, apart = BackgroundGap(), BackgroundGap()
    together.update(d["same"], d["rand"], d["target"])
    apart.update(d["same"], None, d["target"])
    apart.update(None, d["rand"], d["target"])
    assert together.compute() == apart.compute()


def test_known_limits() -> None:
    target = torch.tensor([0, 1, 2])
    wrong = (target + 1) % 3
    assert background_gap(target, wrong, target) == 1
    assert background_gap(wrong, target, target) == -1
    assert decision_consistency(wrong, wrong) == 1
    x = torch.randn(4, 3)
    assert feature_consistency(x, 3 * x) == pytest.approx(1)
    assert feature_consistency(x, -x) == pytest.approx(-1)
    assert feature_consistency(x, torch.zeros(4, 3)) == 0


def test_invalid_samples_may_hold_anything() -> None:
    valid = torch.tensor([True, False])
    metric = BackgroundGap(num_classes=2)
    target = torch.tensor([1, -1])
    metric.update(torch.tensor([1, 0]), torch.tensor([0, 0]), target, valid_same=valid, valid_rand=valid)
    assert metric.compute() == 1
    feature = FeatureConsistency()
    feature.update(torch.ones(2, 2), torch.tensor([[1.0, 1.0], [float("nan"), 0.0]]), valid=valid)
    assert feature.compute() == pytest.approx(1)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_embeddings_that_are_not_finite_are_named(value: float) -> None:
    broken = torch.tensor([[1.0, 1.0], [value, 0.0]])
    for pair in ((broken, torch.ones(2, 2)), (torch.ones(2, 2), broken)):
        with pytest.raises(ValueError, match=r"original, changed: expected finite values, got NaN .* \[1\]"):
            feature_consistency(*pair)


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("average", AVERAGES)
def test_empty_is_nan_with_a_warning(name: str, average: str) -> None:
    metric = METRICS[name](num_classes=2, average=average)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = metric.compute()
    assert torch.isnan(result).all()
    assert any("no valid sample was seen" in str(w.message) for w in caught)


@pytest.mark.parametrize("cls", METRICS.values())
def test_batch_without_samples_changes_nothing(cls) -> None:
    d = _data()
    metric, other = cls(num_classes=K), cls(num_classes=K)
    _update(metric, d)
    _update(other, d)
    _update(other, {k: v[:0] for k, v in d.items()})
    assert metric.compute() == other.compute()


@pytest.mark.parametrize("cls", METRICS.values())
def test_autocast_and_half_precision(cls) -> None:
    d = _data()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        metric = cls(num_classes=K)
        _update(metric, d)
        result = metric.compute()
    plain = cls(num_classes=K)
    _update(plain, d)
    assert result == plain.compute()
    half = cls(num_classes=K)
    _update(half, {k: v.bfloat16() if v.is_floating_point() else v for k, v in d.items()})
    assert half.compute() == pytest.approx(float(result), abs=0.05)


@pytest.mark.parametrize("cls", METRICS.values())
def test_facts_pickle_clone_and_reset(cls) -> None:
    assert cls.is_differentiable is False
    assert cls.full_state_update is False
    assert cls.higher_is_better is (cls is not BackgroundGap)
    metric = cls(num_classes=K)
    _update(metric, _data())
    expected = metric.compute()
    assert pickle.loads(pickle.dumps(metric)).compute() == expected
    assert metric.clone().compute() == expected
    metric.reset()
    _update(metric, _data())
    assert metric.compute() == expected


def test_forward_returns_the_batch_value() -> None:
    d = _data()
    metric = DecisionConsistency()
    first = metric(d["original"][:8], d["rand"][:8])
    assert first == decision_consistency(d["original"][:8], d["rand"][:8])
    metric(d["original"][8:], d["rand"][8:])
    assert metric.compute() == decision_consistency(d["original"], d["rand"])


def _process(rank: int, port: int, folder: str) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    dist.init_process_group("gloo", rank=rank, world_size=2)
    d = _data()
    split = 23  # uneven shares
    share = slice(0, split) if rank == 0 else slice(split, N)
    results = {}
    for name, cls in METRICS.items():
        for average in AVERAGES:
            metric = cls(num_classes=K, average=average)
            mine = {k: v[share] for k, v in d.items()}
            size = 8
            for start in range(0, len(mine["target"]), size):
                _update(metric, {k: v[start : start + size] for k, v in mine.items()})
            results[f"{name}/{average}"] = metric.compute()
    torch.save(results, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_equal_a_single_pass(tmp_path) -> None:
    mp.spawn(_process, args=(29611 + os.getpid() % 1000, str(tmp_path)), nprocs=2, join=True)
    d = _data()
    for rank in (0, 1):
        results = torch.load(tmp_path / f"{rank}.pt")
        for name, cls in METRICS.items():
            for average in AVERAGES:
                single = cls(num_classes=K, average=average)
                _update(single, d)
                # cosines are added in another order: equal to the last bits of float32
                torch.testing.assert_close(results[f"{name}/{average}"], single.compute(), equal_nan=True)


def test_bad_input() -> None:
    target = torch.tensor([0, 1])
    logits = torch.randn(2, 3)
    with pytest.raises(ValueError, match=r"same: expected logits \(B, K\) or predicted classes \(B,\), got float32"):
        background_gap(torch.randn(2), logits, target)
    with pytest.raises(
        ValueError, match=r"same: .* got float32 tensor of shape \(2, 1\); K > 1: of one logit pass the classes"
    ):
        background_gap(torch.randn(2, 1), logits, target)  # its largest column is 0 whatever it says
    with pytest.raises(ValueError, match=r"rand: expected finite values, got NaN or infinity in sample\(s\) \[1\]"):
        background_gap(logits, torch.tensor([[0.0, 1.0], [0.0, float("nan")]]), target)
    with pytest.raises(ValueError, match=r"target: expected shape \(2,\)"):
        background_gap(logits, logits, torch.tensor([0]))
    with pytest.raises(TypeError, match="target: expected integer classes"):
        background_gap(logits, logits, torch.rand(2))
    with pytest.raises(ValueError, match=r"target: expected classes in \[0, 1\], got \[0, 2\]"):
        background_gap(logits, logits, torch.tensor([0, 2]), num_classes=2)
    with pytest.raises(ValueError, match=r"valid: expected a bool tensor \(2,\), got float32"):
        decision_consistency(logits, logits, valid=torch.ones(2))
    with pytest.raises(ValueError, match=r"changed: expected as many samples as original \(2\)"):
        decision_consistency(logits, torch.randn(3, 3))
    with pytest.raises(ValueError, match="target: expected the classes"):
        DecisionConsistency(num_classes=3).update(logits, logits)
    with pytest.raises(ValueError, match="changed: expected width 4"):
        feature_consistency(torch.randn(2, 4), torch.randn(2, 5))
    with pytest.raises(ValueError, match=r"embedding|original: expected shape \(B, D\)"):
        feature_consistency(torch.randn(2, 4, 1, 1), torch.randn(2, 4, 1, 1))
    with pytest.raises(ValueError, match="expected predictions for at least one"):
        BackgroundGap().update(None, None, target)


@pytest.mark.parametrize("cls", METRICS.values())
def test_bad_settings(cls) -> None:
    with pytest.raises(ValueError, match="num_classes: expected a whole number of at least 1, got 0"):
        cls(num_classes=0)
    with pytest.raises(ValueError, match="num_classes: expected a whole number of at least 1, got 2.5"):
        cls(num_classes=2.5)
    with pytest.raises(ValueError, match="average: expected one of 'micro', 'macro', 'none', got 'mean'"):
        cls(num_classes=2, average="mean")
    with pytest.raises(ValueError, match="num_classes: expected the number of classes because average='macro'"):
        cls(average="macro")
    with pytest.raises(ValueError, match="Unexpected keyword arguments: `classes`"):
        cls(classes=3)


def test_updates_never_read_the_device() -> None:
    """On the meta device there are no values: reading one back (``.item()``, boolean indexing) is an error."""
    with torch.device("meta"):
        logits, embedding = torch.empty(8, K), torch.empty(8, D)
        target, valid = torch.empty(8, dtype=torch.int64), torch.empty(8, dtype=torch.bool)
    with pytest.raises(RuntimeError, match=r"meta|Meta"):
        logits.max().item()
    gap, decision, feature = (cls(num_classes=K, sync_on_compute=False).to("meta") for cls in METRICS.values())
    gap.update(logits, logits, target, valid_same=valid, valid_rand=valid)
    decision.update(logits, logits, target, valid=valid)
    feature.update(embedding, embedding, target, valid=valid)
    assert gap.correct_same.device.type == feature.total.device.type == "meta"
