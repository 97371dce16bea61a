"""What a batch says of its images, and what is refused because nobody could tell what it says."""

from __future__ import annotations

import pytest
import torch

from torch_bgdebias.probe.passes.labels import labels_of_batch, set_codes


def read(value, task="multiclass"):
    return labels_of_batch(value, len(value), task=task, number=3)


def test_one_class() -> None:
    targets = read(torch.tensor([2, 0], dtype=torch.int32))
    assert (targets.label.tolist(), targets.targets, targets.soft) == ([2, 0], None, False)


@pytest.mark.parametrize(
    ("shares", "label", "soft"),
    [
        (torch.eye(3), [0, 1, 2], False),  # one-hot is no guess
        (0.9 * torch.eye(3) + 0.1 / 3, [0, 1, 2], True),
        (torch.tensor([[0.2, 0.3, 0.5], [0.6, 0.4, 0.0]], dtype=torch.float16), [2, 0], True),
    ],
)
def test_shares_of_classes_are_their_largest_class(shares, label, soft) -> None:
    targets = read(shares)
    assert (targets.label.tolist(), targets.soft) == (label, soft)


@pytest.mark.parametrize("kind", [torch.int64, torch.uint8, torch.bool])
def test_whole_numbers_in_columns_may_be_sets_and_are_not_guessed(kind) -> None:
    one_hot = torch.eye(3).to(kind)
    with pytest.raises(ValueError, match=r"for one-hot labels pass BatchSpec\(label=lambda batch: batch\[1\].argmax"):
        read(one_hot)
    assert read(one_hot.int().argmax(1)).label.tolist() == [0, 1, 2]
    assert read(one_hot, "multilabel").targets.tolist() == torch.eye(3).tolist()


@pytest.mark.parametrize(
    ("value", "label", "soft"),
    [
        (torch.tensor([0.0, 1.0]), [0, 1], False),
        (torch.tensor([[1], [0]]), [1, 0], False),
        (torch.tensor([True, False]), [1, 0], False),
        (torch.tensor([[0.05], [0.95]]), [0, 1], True),
        (torch.tensor([0.3, 1.0, 0.0]), [0, 1, 0], True),
    ],
)
def test_two_classes_of_one_logit(value, label, soft) -> None:
    targets = read(value, "binary")
    assert (targets.label.tolist(), targets.soft) == (label, soft)


def test_label_sets_and_their_numbers() -> None:
    targets = torch.tensor([[1, 0, 1], [0, 0, 0], [0, 1, 0]])
    for given in (targets, targets.float(), targets.bool()):
        label_targets = read(given, "multilabel")
        assert label_targets.targets.tolist() == targets.tolist()
        assert label_targets.label.tolist() == [5, 0, 2]
    many = torch.zeros(3, 80, dtype=torch.long)  # as COCO has: more than a number has bits
    many[0, 79] = many[1, 78] = 1
    codes = set_codes(many)
    assert len(set(codes.tolist())) == 3
    assert int(codes.min()) >= 0
    assert torch.equal(codes, set_codes(many.clone()))


@pytest.mark.parametrize(
    ("value", "task", "error", "match"),
    [
        (torch.tensor([0.5, 1.0]), "multiclass", TypeError, "label: expected integer classes"),
        (
            torch.tensor([[1.0, 1.0, 0.0]]),
            "multiclass",
            ValueError,
            "label: expected classes .*add up to 1.*task='multilabel'",
        ),
        (
            torch.tensor([[0.5, 0.5]]),
            "multiclass",
            ValueError,
            "with one largest class, got two of 0.5 for image 0 of batch 3",
        ),
        (torch.tensor([[1.5, -0.5]]), "multiclass", ValueError, "label: expected classes"),
        (
            torch.tensor([[1, 0]]),
            "binary",
            ValueError,
            r"label: expected \(1,\) or \(1, 1\) of 0 and 1 for task='binary'",
        ),
        (torch.tensor([0.5, 0.2]), "binary", ValueError, "shares of class 1 in .0, 1. other than 0.5"),
        (torch.tensor([1.5]), "binary", ValueError, "got 1.5 to 1.5 in batch 3"),
        (torch.tensor([1, -1]), "binary", ValueError, "label: expected classes of at least 0, got -1 in batch 3"),
        (torch.tensor([1, 0]), "multilabel", ValueError, r"label: expected label sets \(2, L\) of 0 and 1"),
        (
            torch.tensor([[1, -1]]),
            "multilabel",
            ValueError,
            "got -1 in batch 3; a label that is not known, or only likely",
        ),
        (torch.tensor([[0.9, 0.0]]), "multilabel", ValueError, "got 0.9 in batch 3"),
        (torch.tensor([[float("nan"), 0.0]]), "multilabel", ValueError, "got nan in batch 3"),
        ("cat", "multiclass", TypeError, "label: expected a tensor, got str 'cat'"),
    ],
)
def test_refused_by_name(value, task, error, match) -> None:
    with pytest.raises(error, match=match):
        read(value, task)
