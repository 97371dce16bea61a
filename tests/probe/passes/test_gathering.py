"""Which background an image gets."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from probe_toy import K, Reader, ToyImages, cheat, same_images, toy_loader
from torch.utils.data import DataLoader

from torch_bgdebias.backgrounds import BackgroundBank
from torch_bgdebias.backgrounds.pool import Pool
from torch_bgdebias.data import make_variant
from torch_bgdebias.probe import evaluate_background_bias
from torch_bgdebias.probe.passes.gathering import BackgroundPool, mixed_hash

MIXED = ("mixed_same", "mixed_rand", "mixed_next")


def test_limited_pool_does_not_depend_on_order() -> None:
    data = ToyImages(60)
    options = {"variants": MIXED, "max_backgrounds": 12}
    one = evaluate_background_bias(cheat(), DataLoader(data, batch_size=7), **options)
    two = evaluate_background_bias(cheat(), DataLoader(data, batch_size=60, shuffle=True), **options)
    assert one.counts["backgrounds"] == 12
    same_images(one, two, but=("position",))


def test_seed_decides() -> None:
    reports = [evaluate_background_bias(cheat(), toy_loader(), variants=["mixed_rand"], seed=s) for s in (3, 3, 4)]
    same_images(reports[0], reports[1])
    first, other = (r.images.background_label["mixed_rand"] for r in reports[1:])
    assert (first != other).any()


def test_random_class_is_uniform_and_never_the_own_image() -> None:
    data = ToyImages(400)
    seen = []

    class Spy(Reader):
        def forward(self, image):
            seen.append(image.clone())
            return super().forward(image) - 1  # below 0: no sigmoid's outputs, for which the model would be watched

    report = evaluate_background_bias(
        Spy(0, 0, 0), DataLoader(data, batch_size=400), variants=["mixed_same", "mixed_rand"]
    )
    original, same, rand = seen
    outside = ~data.masks[0, 0].bool()
    for changed in (same, rand):
        assert (
            (changed - original).abs()[:, 2][:, outside].sum(1) > 0
        ).all()  # another image's noise around the object
        assert torch.equal(changed[:, :, ~outside], original[:, :, ~outside])
    share = np.bincount(report.images.background_label["mixed_rand"], minlength=K) / 400
    np.testing.assert_allclose(share, 0.25, atol=0.08)


def test_agrees_with_make_variant_where_there_is_no_choice() -> None:
    data = ToyImages(2, classes=2)
    seen = []

    class Spy(Reader):
        def forward(self, image):
            seen.append(image.clone())
            return super().forward(image) - 1  # below 0: no sigmoid's outputs, for which the model would be watched

    evaluate_background_bias(Spy(0, 0, 0), [data[:]], variants=["mixed_next"], num_classes=K)
    expected = make_variant(data.images, data.masks, data.labels, "mixed_next", num_classes=K)
    assert expected.valid.tolist() == [True, False]
    torch.testing.assert_close(seen[1], expected.image, rtol=0, atol=0)


def test_variants_follow_make_variant_with_normalisation() -> None:
    data = ToyImages(6)
    mean, std = (0.3, 0.2, 0.1), (0.5, 0.4, 0.3)
    seen = []

    class Spy(Reader):
        def forward(self, image):
            seen.append(image.clone())
            return super().forward(image) - 1  # below 0: no sigmoid's outputs, for which the model would be watched

    evaluate_background_bias(Spy(0, 0, 0), [data[:]], variants=["only_fg", "only_bg_b"], mean=mean, std=std)
    for name, image in zip(("only_fg", "only_bg_b"), seen[1:], strict=True):
        expected = make_variant(data.images, data.masks, data.labels, name, mean=mean, std=std)
        torch.testing.assert_close(image, expected.image)


def test_external_backgrounds() -> None:
    colours = torch.zeros(K, 3, 6, 6)
    colours[:, 0] = (torch.arange(K) / 10)[:, None, None]
    labelled = evaluate_background_bias(
        cheat(), toy_loader(), variants=MIXED, backgrounds=colours, background_labels=torch.arange(K)
    )
    assert labelled.variants["mixed_same"].accuracy.value == 1
    assert labelled.variants["mixed_next"].accuracy.value == 0
    unlabelled = evaluate_background_bias(cheat(), toy_loader(), variants=MIXED, backgrounds=colours)
    assert unlabelled.variants["mixed_same"].n_left_out == 40
    assert math.isnan(unlabelled.variants["mixed_same"].accuracy.value)
    assert unlabelled.counts["without_partner_mixed_same"] == 40
    assert unlabelled.variants["mixed_rand"].n_left_out == 0
    assert math.isnan(unlabelled.bg_gap.value)


def test_bank_of_bytes_is_normalised() -> None:
    mean, std = [0.1, 0.2, 0.3], [0.5, 0.6, 0.7]
    pictures = torch.randint(0, 256, (3, 3, 10, 10), dtype=torch.uint8)

    class Bank:
        images, labels = pictures, torch.tensor([0, 1, 2])

    taken = BackgroundPool.of(Bank(), mean=mean, std=std).take(np.array([2, 0]), torch.zeros(2, 3, 10, 10))
    shape = (1, 3, 1, 1)
    expected = (pictures[[2, 0]] / 255 - torch.tensor(mean).reshape(shape)) / torch.tensor(std).reshape(shape)
    torch.testing.assert_close(taken, expected)


def test_the_class_of_a_random_background_is_drawn_from_those_that_have_one_for_the_image() -> None:
    """Classes whose one background is the image's own are passed over; compared with looking at every class."""
    labels = torch.tensor([0, 0, 1, 2, 2, 3, 5])
    ids = [10, 11, 12, 13, 14, 15, 12]
    pool = BackgroundPool(Pool(torch.rand(7, 3, 4, 4), labels, own=True), ids)
    seen = np.array([*range(10, 16), *range(100, 400)], np.uint64)
    rows = pool.choose("mixed_rand", seen, [0] * len(seen), num_classes=6, seed=3)
    first = mixed_hash(seen, 8 * 3 + 1)
    second = mixed_hash(first, 1)
    for id, row, one, two in zip(seen.tolist(), rows.tolist(), first.tolist(), second.tolist(), strict=True):
        left = {c: [r for r in range(7) if labels[r] == c and ids[r] != id] for c in (0, 1, 2, 3, 5)}
        classes = [c for c in left if left[c]]
        members = left[classes[one % len(classes)]]
        assert row == members[two % len(members)]
    assert set(rows[seen == 12].tolist()) <= {0, 1, 3, 4, 5}


def test_draws_pass_over_what_is_not_usable_or_forbidden() -> None:
    usable = torch.tensor([True, False, True, True])
    pool = BackgroundPool(Pool(torch.rand(4, 3, 4, 4), usable=usable))
    seen = np.arange(500, dtype=np.uint64)
    rows = pool.draw(seen, [0] * 500, number=0, seed=0)
    assert set(rows.tolist()) == {0, 2, 3}
    assert np.abs(np.bincount(rows, minlength=4)[[0, 2, 3]] - 500 / 3).max() < 4 * math.sqrt(500 * 2 / 9)
    assert (rows != pool.draw(seen, [0] * 500, number=1, seed=0)).any()
    nothing = BackgroundPool(Pool(torch.rand(2, 3, 4, 4), usable=torch.zeros(2, dtype=torch.bool)))
    assert nothing.draw(seen[:3], [0] * 3, number=0, seed=0).tolist() == [-1, -1, -1]


def colour_bank(names) -> BackgroundBank:
    """One background a class, in the colour that `cheat` takes for it, in the order of ``names``."""
    colours = torch.zeros(K, 3, 6, 6)
    colours[:, 0] = (torch.tensor([int(name.split()[-1]) for name in names]) / 10)[:, None, None]
    return BackgroundBank(colours, torch.arange(K), classes=names)


def test_a_bank_is_numbered_by_its_names() -> None:
    names = [f"Class_{c}" for c in range(K)]
    turned = colour_bank([f"class {c}" for c in reversed(range(K))])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report = evaluate_background_bias(cheat(), toy_loader(), variants=MIXED, backgrounds=turned, class_names=names)
    assert report.variants["mixed_same"].accuracy.value == 1
    assert report.variants["mixed_next"].accuracy.value == 0
    assert set(report.images.background_label["mixed_same"]) == set(range(K))


def test_categories_that_are_no_classes_are_nobodys_own() -> None:
    options = {"variants": MIXED, "class_names": ["cat", "cow", "dog", "hen"]}
    bank = colour_bank([f"scene {c}" for c in range(K)])
    with pytest.warns(UserWarning, match=r"none of the bank's categories \(scene 0, .*mixed_same and mixed"):
        report = evaluate_background_bias(cheat(), toy_loader(), backgrounds=bank, **options)
    assert math.isnan(report.bg_gap.value)
    assert report.variants["mixed_same"].n_left_out == 40
    assert report.variants["mixed_rand"].n_left_out == 0
    assert set(report.images.background_label["mixed_rand"]) == {-1}
    advised = [
        evaluate_background_bias(cheat(), toy_loader(), backgrounds=bank, background_labels=bank.labels, **options),
        evaluate_background_bias(
            cheat(), toy_loader(), backgrounds=BackgroundBank(bank.images, bank.labels), **options
        ),
    ]
    assert [report.variants["mixed_same"].accuracy.value for report in advised] == [1, 1]
    some = colour_bank(["cat 0", "scene 1", "scene 2", "scene 3"])
    some = BackgroundBank(some.images, some.labels, classes=["cat", "one", "two", "three"])
    with pytest.warns(UserWarning, match=r"3 of 4 classes \(cow, dog, hen\) are .* of the other 1 alone"):
        partly = evaluate_background_bias(cheat(), toy_loader(), backgrounds=some, **options)
    assert partly.bg_gap.n == partly.variants["mixed_same"].accuracy.n
    assert partly.variants["mixed_same"].accuracy.n == (ToyImages(40).labels == 0).sum()
    drawn = partly.images.background_label["mixed_rand"]
    assert 0 < (drawn == 0).mean() < 0.6  # a category in four, and the others are not one


def test_categories_that_are_no_classes_have_no_number_where_there_is_one_logit() -> None:
    image, label, mask = ToyImages(40)[:]
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(image[0].numel(), 1))
    report = evaluate_background_bias(
        model, [(image, label % 2, mask)], variants=MIXED[:2], task="binary", class_names=["scene 0", "ill"],
        backgrounds=colour_bank([f"scene {c}" for c in range(K)]),
    )  # fmt: skip
    assert set(report.images.background_label["mixed_rand"]) == {-1, 0}
    assert set(report.images.background_label["mixed_same"]) == {-1, 0}
