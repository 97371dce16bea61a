"""What a cheating and an honest model must score, exactly; order, batches and bad input must not matter or be named."""

from __future__ import annotations

import copy
import json
import math
import random
import warnings

import numpy as np
import pytest
import torch
from probe_toy import SIDE, K, Reader, ToyImages, cheat, honest
from torch import nn
from torch.utils.data import DataLoader

from torch_bgdebias.batch import BatchSpec
from torch_bgdebias.data import VARIANTS, make_variant
from torch_bgdebias.isnet import ISNet
from torch_bgdebias.probe import BackgroundBiasReport, evaluate_background_bias
from torch_bgdebias.probe.passes.gathering import BackgroundPool
from torch_bgdebias.probe.passes.heatmaps import unpacked_heatmap
from torch_bgdebias.probe.report import report_html
from torch_bgdebias.probe.results.aggregate import compare_reports, summarise

MIXED = ("mixed_same", "mixed_rand", "mixed_next")


def _loader(n: int = 40, batch_size: int = 7, **kwargs) -> DataLoader:
    return DataLoader(ToyImages(n, **kwargs), batch_size=batch_size)


def _same_images(a: BackgroundBiasReport, b: BackgroundBiasReport, *, but: tuple[str, ...] = ()) -> None:
    one, two = a.to_dict()["images"], b.to_dict()["images"]
    assert {k: v for k, v in one.items() if k not in but} == {k: v for k, v in two.items() if k not in but}


def test_cheating_model_scores_what_its_backgrounds_say() -> None:
    report = evaluate_background_bias(cheat(), _loader(), n_resamples=500)
    images = report.images
    assert list(report.variants) == ["original", *VARIANTS]
    assert all(r.n_left_out == 0 for r in report.variants.values())
    for name in MIXED:  # it answers the background's class, always
        np.testing.assert_array_equal(images.prediction[name], images.background_label[name])
    accuracy = {name: r.accuracy.value for name, r in report.variants.items()}
    assert accuracy["original"] == accuracy["mixed_same"] == accuracy["only_bg_t"] == accuracy["no_fg"] == 1
    assert accuracy["mixed_next"] == 0
    assert accuracy["only_fg"] == 0.25  # black is class 0
    agreeing = (images.background_label["mixed_rand"] == images.label).mean()
    assert accuracy["mixed_rand"] == agreeing
    assert report.bg_gap.value == pytest.approx(1 - agreeing)
    assert 0.05 < agreeing < 0.5  # one class in four, drawn
    assert report.bg_gap.low < report.bg_gap.value < report.bg_gap.high
    for name in MIXED:  # one-hot embeddings: the cosine is 1 where the class stays, 0 elsewhere
        result = report.variants[name]
        assert result.decision_consistency.value == accuracy[name]
        assert result.feature_consistency.value == pytest.approx(accuracy[name])
    assert [c.n for c in report.per_class] == [10] * K
    for row in report.per_class:
        assert row.bg_gap.value == pytest.approx(1 - row.accuracy["mixed_rand"].value)
    assert report.variants["only_fg"].decision_consistency is None


def test_honest_model_has_no_gap() -> None:
    report = evaluate_background_bias(honest(), _loader(), variants=MIXED)
    assert (report.bg_gap.value, report.bg_gap.low, report.bg_gap.high) == (0, 0, 0)
    for name in MIXED:
        assert report.variants[name].accuracy.value == 1
        assert report.variants[name].decision_consistency.value == 1
        assert report.variants[name].feature_consistency.value == pytest.approx(1)


def test_order_and_batch_size_do_not_matter() -> None:
    data = ToyImages(37)
    shuffled = DataLoader(data, batch_size=5, shuffle=True)
    reports = [
        evaluate_background_bias(cheat(), loader, variants=MIXED)
        for loader in (DataLoader(data, batch_size=1), DataLoader(data, batch_size=37), shuffled)
    ]
    _same_images(reports[0], reports[1])
    _same_images(reports[0], reports[2], but=("position",))
    assert reports[0].to_dict()["variants"] == reports[2].to_dict()["variants"]
    assert reports[0].bg_gap == reports[2].bg_gap


def test_limited_pool_does_not_depend_on_order() -> None:
    data = ToyImages(60)
    options = {"variants": MIXED, "max_backgrounds": 12}
    one = evaluate_background_bias(cheat(), DataLoader(data, batch_size=7), **options)
    two = evaluate_background_bias(cheat(), DataLoader(data, batch_size=60, shuffle=True), **options)
    assert one.counts["backgrounds"] == 12
    _same_images(one, two, but=("position",))


def test_seed_decides() -> None:
    reports = [evaluate_background_bias(cheat(), _loader(), variants=["mixed_rand"], seed=s) for s in (3, 3, 4)]
    _same_images(reports[0], reports[1])
    first, other = (r.images.background_label["mixed_rand"] for r in reports[1:])
    assert (first != other).any()


def test_random_class_is_uniform_and_never_the_own_image() -> None:
    data = ToyImages(400)
    seen = []

    class Spy(Reader):
        def forward(self, image):
            seen.append(image.clone())
            return super().forward(image)

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
            return super().forward(image)

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
            return super().forward(image)

    evaluate_background_bias(Spy(0, 0, 0), [data[:]], variants=["only_fg", "only_bg_b"], mean=mean, std=std)
    for name, image in zip(("only_fg", "only_bg_b"), seen[1:], strict=True):
        expected = make_variant(data.images, data.masks, data.labels, name, mean=mean, std=std)
        torch.testing.assert_close(image, expected.image)


def test_external_backgrounds() -> None:
    colours = torch.zeros(K, 3, 6, 6)
    colours[:, 0] = (torch.arange(K) / 10)[:, None, None]
    labelled = evaluate_background_bias(
        cheat(), _loader(), variants=MIXED, backgrounds=colours, background_labels=torch.arange(K)
    )
    assert labelled.variants["mixed_same"].accuracy.value == 1
    assert labelled.variants["mixed_next"].accuracy.value == 0
    unlabelled = evaluate_background_bias(cheat(), _loader(), variants=MIXED, backgrounds=colours)
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


def test_images_without_partner_or_foreground_are_counted_and_left_out() -> None:
    data = ToyImages(9)  # class 0 three times, others twice
    data.labels[8] = 3
    data.labels[4] = 1  # class 0 once
    data.masks[1] = 0
    report = evaluate_background_bias(cheat(), DataLoader(data, batch_size=2), variants=["mixed_same", "only_fg"])
    assert report.counts["without_foreground"] == 1
    assert report.counts["without_partner_mixed_same"] == 1
    assert report.variants["mixed_same"].n_left_out == 2
    assert report.variants["mixed_same"].accuracy.n == 7
    assert report.variants["only_fg"].n_left_out == 1
    assert report.variants["original"].n_left_out == 0
    alone = int(np.flatnonzero(report.images.position == 0)[0])
    assert not report.images.valid("mixed_same")[alone]
    assert math.isnan(report.images.cosine["mixed_same"][alone])


def test_one_image() -> None:
    report = evaluate_background_bias(cheat(), _loader(1), variants=["mixed_rand"])
    assert report.variants["original"].accuracy.value == 1
    assert math.isnan(report.variants["original"].accuracy.low)
    assert report.variants["mixed_rand"].n_left_out == 1
    assert "mixed_rand" in report.summary()


def test_model_and_global_state_are_left_as_found() -> None:
    model = cheat().train()
    model.head.eval()
    model.head.weight.grad = torch.ones_like(model.head.weight)
    before = copy.deepcopy(model.state_dict())
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    evaluate_background_bias(model, DataLoader(ToyImages(), batch_size=8, shuffle=True), n_resamples=50)
    assert model.training
    assert model.norm.training
    assert not model.head.training
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert torch.equal(model.head.weight.grad, torch.ones_like(model.head.weight))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert (np.random.get_state()[1] == states[2]).all()  # noqa: NPY002


def test_model_is_left_as_found_after_an_error() -> None:
    class Breaks(Reader):
        def forward(self, image):
            if self.training:
                raise AssertionError("evaluated in training mode")
            raise RuntimeError("broken")

    model = Breaks(0, 0, 0).train()
    with pytest.raises(RuntimeError, match="broken"):
        evaluate_background_bias(model, _loader())
    assert model.training
    assert not any(m._forward_hooks for m in model.modules())


def test_dict_batches_and_dict_outputs() -> None:
    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = cheat()

        def forward(self, pixels, flag):
            return {"scores": self.inner(pixels), "flag": flag}

    plain = evaluate_background_bias(cheat(), _loader(), variants=["mixed_rand"])
    report = evaluate_background_bias(
        Wrapped(),
        _loader(kind="dict"),
        spec=BatchSpec(image="pixels", label="y", mask="seg"),
        forward=lambda model, image: model(image, flag=True),
        logits="scores",
        layer="inner.head",
        variants=["mixed_rand"],
    )
    _same_images(plain, report)


def test_pretrained_architectures() -> None:
    timm = pytest.importorskip("timm")
    torchvision = pytest.importorskip("torchvision")
    models = [timm.create_model("vit_tiny_patch16_224", img_size=32, patch_size=8, num_classes=K)]
    models.append(torchvision.models.resnet18(num_classes=K))
    batches = [(torch.rand(4, 3, 32, 32), torch.arange(4) % 2, torch.zeros(4, 1, 32, 32)) for _ in range(2)]
    for _, _, mask in batches:
        mask[:, :, 8:20, 8:20] = 1
    for model in models:
        report = evaluate_background_bias(model, batches, variants=["mixed_rand"])
        assert len(report.images) == 8
        assert -1 <= report.variants["mixed_rand"].feature_consistency.value <= 1


def test_report_survives_json_and_can_be_recomputed(tmp_path) -> None:
    scores = {"brightness": lambda model, image, mask, label: image.mean((1, 2, 3)).where(label > 0, torch.nan)}
    report = evaluate_background_bias(cheat(), _loader(), scores=scores, examples=3, max_batches=5, n_resamples=300)
    assert len(report.images) == 35
    path = tmp_path / "report.json"
    report.to_json(path)
    again = BackgroundBiasReport.from_json(path)
    assert again.to_dict() == report.to_dict()
    json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    for column in ("id", "label", "position"):
        mine, theirs = getattr(report.images, column), getattr(again.images, column)
        assert mine.dtype == theirs.dtype
        np.testing.assert_array_equal(mine, theirs)
    np.testing.assert_array_equal(again.images.cosine["mixed_rand"], report.images.cosine["mixed_rand"])
    recomputed = summarise(
        again.images, model=again.model, class_names=again.class_names, n_resamples=300, counts=again.counts
    )
    assert recomputed.to_dict()["variants"] == report.to_dict()["variants"]
    assert recomputed.to_dict()["per_class"] == report.to_dict()["per_class"]
    assert report.scores["brightness"].n_undefined == 9
    assert report.scores["brightness"].mean.n == 26
    wider = summarise(again.images, model="m", class_names=again.class_names, confidence=0.999)
    assert wider.bg_gap.high - wider.bg_gap.low > report.bg_gap.high - report.bg_gap.low
    assert "99.9 % intervals" in wider.summary()


def test_examples_are_images_that_were_hurt() -> None:
    report = evaluate_background_bias(cheat(), _loader(), variants=["mixed_rand", "mixed_next"], examples=4)
    assert len(report.examples) == 4
    for example in report.examples:
        assert example.prediction["original"] == example.label
        assert example.prediction["mixed_next"] != example.label
        assert set(example.pictures) == {"original", "mixed_rand", "mixed_next"}
        picture = example.pictures["original"]
        assert picture.shape == (10, 10, 3)
        assert picture.dtype == np.uint8
        assert picture[5, 5, 0] == round(0.9 * 255)


def left_half(model, image, target):
    """Speaks for the class on the left, against it on the right, twice as much in the first row."""
    found = torch.ones(len(image), 1, SIDE, SIDE)
    found[..., SIDE // 2 :] = -1
    found[..., 0, :] *= 2
    return found


def test_attributions_give_ratios_and_heatmaps() -> None:
    asked = []

    def noting(model, image, target):
        asked.append(target.tolist())
        return left_half(model, image, target).repeat(1, 3, 1, 1)

    report = evaluate_background_bias(
        cheat(), _loader(), variants=["mixed_next"], examples=3, attributions={"left": left_half, "noted": noting}
    )
    # the object's columns 3 and 4 of rows 3 to 6 are on the left, which holds 45 positive pixels and 5 doubled ones
    ratio = 4 * 2 / (45 + 2 * 5)
    for name in ("left", "noted"):
        assert report.images.scores[f"pixel_ratio/{name}"].tolist() == pytest.approx([ratio] * 40)
    assert [x for batch in asked for x in batch] == [
        i % 4 for i in range(40)
    ]  # the class predicted, which is right here
    for example in report.examples:
        heat = unpacked_heatmap(example.heatmaps["left"])
        assert heat == pytest.approx(left_half(None, [0], None)[0, 0].numpy() / 2, abs=0.01)
        assert (example.mask == ToyImages().masks[0, 0].numpy() * 255).all()
    again = BackgroundBiasReport.from_dict(json.loads(json.dumps(report.to_dict())))
    assert (again.examples[0].heatmaps["left"] == report.examples[0].heatmaps["left"]).all()
    assert (again.examples[0].mask == report.examples[0].mask).all()


@pytest.mark.parametrize("name", ["grad_cam", "kernel_shap", "lrp", "isnet"])
def test_attributions_by_name(name: str) -> None:
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 6, 3),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(6, 4),
    )
    if name in ("lrp", "isnet"):
        pytest.importorskip("zennit")
    model = ISNet(net, variant="selective") if name == "isnet" else net
    report = evaluate_background_bias(
        model, _loader(), variants=MIXED, attributions=[name], explain="label", examples=2, max_batches=1
    )
    assert np.isfinite(report.scores[f"pixel_ratio/{name}"].mean.value)
    assert all(e.heatmaps[name].std() > 0 for e in report.examples)
    assert report.settings["attributions"] == [name]
    if name == "grad_cam":
        with pytest.raises(ValueError, match="'isnet' needs a model wrapped in ISNet, got Sequential"):
            evaluate_background_bias(net, _loader(), variants=[], attributions=["isnet"])
        with pytest.raises(ValueError, match="attributions: expected one of 'grad_cam'"):
            evaluate_background_bias(net, _loader(), variants=[], attributions=["gradcam"])
        with pytest.raises(ValueError, match=r"attributions\['flat'\]: expected \(7, 1, 10, 10\), got"):
            evaluate_background_bias(net, _loader(), variants=[], attributions={"flat": lambda m, x, t: x.mean(1)})


def test_variants_that_the_batch_brings_along() -> None:
    data = ToyImages()
    swapped = data.images.roll(1, 0)  # of the next image's class
    there = torch.arange(40) > 3

    def batches():
        for i in (slice(0, 25), slice(25, 40)):
            ready = {"mixed_rand": (swapped[i], data.labels.roll(1)[i], there[i]), "mixed_same": data.images[i]}
            yield data.images[i], data.labels[i], data.masks[i], ready

    report = evaluate_background_bias(cheat(), list(batches()), variants=MIXED[:2], ready=3)
    assert report.variants["mixed_same"].accuracy.value == 1
    assert report.variants["mixed_rand"].accuracy.value == 0
    assert report.variants["mixed_rand"].n_left_out == 4
    assert report.counts["without_partner_mixed_rand"] == 4
    assert sorted(set(report.images.background_label["mixed_rand"])) == [-1, 0, 1, 2, 3]
    with pytest.raises(KeyError, match="expected a dict of variants at 3 of batch 0, got without mixed_next"):
        evaluate_background_bias(cheat(), list(batches()), variants=["mixed_next"], ready=3)
    with pytest.raises(KeyError, match="got float32 tensor"):
        evaluate_background_bias(cheat(), list(batches()), variants=["mixed_same"], ready=2)
    wrong = [(*b[:3], {"mixed_same": b[0][:, :, 1:]}) for b in batches()]
    with pytest.raises(ValueError, match=r"ready\['mixed_same'\]: expected images \(25, 3, 10, 10\), got"):
        evaluate_background_bias(cheat(), wrong, variants=["mixed_same"], ready=3)


def test_reports_of_the_first_layout_are_read() -> None:
    data = evaluate_background_bias(cheat(), _loader(), variants=MIXED, examples=2).to_dict()
    data["schema"] = "torch_bgdebias.report/1"
    for example in data["examples"]:
        del example["heatmaps"], example["mask"]
    del data["concepts"]
    old = BackgroundBiasReport.from_dict(data)
    assert old.examples[0].heatmaps == {}
    assert old.examples[0].mask is None
    assert "Worst images" in report_html([old])


def test_class_names_come_from_the_data_set() -> None:
    data = ToyImages()
    data.classes = ["ant", "bee", "cat", "dog"]
    report = evaluate_background_bias(cheat(), DataLoader(data, batch_size=9), variants=["mixed_rand"])
    assert [c.name for c in report.per_class] == data.classes
    assert "BG-Gap" not in report.summary()
    with pytest.raises(ValueError, match="class_names: expected 4 names, one per output of the model, got 3"):
        evaluate_background_bias(cheat(), DataLoader(data), class_names=["a", "b", "c"], variants=[])


def test_summary_says_the_numbers() -> None:
    text = evaluate_background_bias(cheat(), _loader(), name="cheat", n_resamples=100).summary()
    for part in ("cheat: background bias (40 images, 4 classes", "original", "accuracy 100.0 [100.0, 100.0]", "BG-Gap"):
        assert part in text


def test_comparison_of_two_models() -> None:
    one = evaluate_background_bias(cheat(), _loader(), variants=MIXED, name="cheat")
    two = evaluate_background_bias(honest(), _loader(), variants=MIXED, name="honest")
    tests = compare_reports(one, two)
    assert tests["bg_gap"].difference == pytest.approx(one.bg_gap.value - two.bg_gap.value)
    assert tests["bg_gap"].p_value < 1e-4
    assert tests["accuracy/original"].p_value == 1
    assert tests["accuracy/mixed_next"].difference == -1
    assert tests["feature_consistency/mixed_rand"].n == 40
    # another normalisation: no image has the same content, positions still match them
    moved = evaluate_background_bias(
        honest(), [(x + 0.001, y, m) for x, y, m in _loader()], variants=MIXED, name="moved"
    )
    assert compare_reports(one, moved)["bg_gap"].n == 40
    two.images.label = two.images.label + 1
    with pytest.raises(ValueError, match="no image that both have"):
        compare_reports(one, two)


def test_progress_wraps_both_passes() -> None:
    seen = []

    def progress(batches, *, total, label):
        seen.append((label, total))
        return batches

    evaluate_background_bias(cheat(), _loader(), variants=["mixed_rand"], progress=progress)
    assert seen == [("backgrounds", 6), ("images", 6)]


def _batch(**changes):
    data = ToyImages(6)
    fields = {"image": data.images, "label": data.labels, "mask": data.masks} | changes
    return [(fields["image"], fields["label"], fields["mask"])]


@pytest.mark.parametrize(
    ("batches", "error", "match"),
    [
        ([(torch.rand(2, 3, 10, 10), torch.tensor([0, 1]))], KeyError, r"batch has no mask at 2; it holds 2 item\(s\)"),
        (_batch(mask=torch.ones(6, 1, 9, 10)), ValueError, r"mask: expected shape \(6, 1, 10, 10\)"),
        (_batch(mask=torch.full((6, 1, 10, 10), 255)), TypeError, "mask: expected bool or floating point"),
        (_batch(mask=torch.full((6, 1, 10, 10), 2.0)), ValueError, r"mask: expected values in \[0, 1\], got \[2, 2\]"),
        (
            _batch(mask=torch.full((6, 1, 10, 10), torch.nan)),
            ValueError,
            r"mask: expected values in \[0, 1\], got \[nan",
        ),
        (
            _batch(label=torch.tensor([0, 1, 2, 3, 4, 0])),
            ValueError,
            r"label: expected classes in \[0, 3\], the model's",
        ),
        (_batch(label=torch.tensor([0, 1, 2, 3, -1, 0])), ValueError, "label: expected classes of at least 0, got -1"),
        (_batch(label=torch.rand(6)), TypeError, "label: expected integer classes"),
        (_batch(image=torch.zeros(6, 3, 10, 10, dtype=torch.uint8)), TypeError, "image: expected a floating point"),
        ([], ValueError, "loader: expected at least one batch with an image, got none"),
        (iter(_batch()), TypeError, "loader: expected an iterable that starts again each time, got list_iterator"),
        (3, TypeError, "loader: expected an iterable of batches, got int"),
    ],
)
def test_bad_batches(batches, error, match) -> None:
    with pytest.raises(error, match=match):
        evaluate_background_bias(cheat(), batches)


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"variants": ["mixed"]}, ValueError, "variants: expected one of 'only_fg'"),
        ({"spec": BatchSpec(mask=None)}, ValueError, "mask: expected foreground masks in every batch"),
        ({"num_classes": 7}, LookupError, None),
        ({"num_classes": 7, "layer": "head"}, ValueError, "num_classes: expected 7 outputs of the model, got 4"),
        ({"layer": "heat"}, KeyError, "layer 'heat' is not in Reader; near names: head"),
        ({"layer": "norm", "logits": "x"}, TypeError, "model output: no logits at 'x'"),
        ({"mean": [0.5]}, ValueError, "mean, std: expected both or none, got only mean"),
        ({"seed": -1}, ValueError, "seed: expected a number of at least 0, got -1"),
        ({"device": "meta"}, ValueError, r"device: expected where the model is \(cpu\), got meta"),
        ({"max_backgrounds": 1}, ValueError, "max_backgrounds: expected at least 2, got 1"),
        ({"backgrounds": "forest"}, TypeError, "backgrounds: expected uint8 or float images"),
        ({"backgrounds": torch.zeros(0, 3, 4, 4)}, ValueError, "backgrounds: expected at least one image, got none"),
        (
            {"backgrounds": torch.zeros(2, 1, 4, 4)},
            ValueError,
            "backgrounds: expected 3 channels like the images, got 1",
        ),
        (
            {"backgrounds": torch.zeros(2, 3, 4, 4), "background_labels": torch.zeros(3).long()},
            ValueError,
            r"background_labels: expected shape \(2,\)",
        ),
        ({"examples": -1}, ValueError, "examples: expected at least 0, got -1"),
        ({"confidence": 95}, ValueError, r"confidence: expected a number in \(0, 1\), got 95"),
        ({"scores": {"s": lambda m, x, k, y: x}}, ValueError, r"scores\['s'\]: expected one number an image \(6,\)"),
        ({"logits": lambda out: out[:, :1]}, ValueError, r"model output: expected logits \(6, K\), K > 1, got float32"),
        ({"logits": lambda out: out * torch.nan}, ValueError, r"logits \(original, batch 0\): expected finite values"),
        ({"variant": ["mixed_rand"]}, TypeError, "unexpected keyword argument 'variant'"),
    ],
)
def test_bad_settings(options, error, match) -> None:
    if error is LookupError:  # no such head: the embedding is left out with a warning, then the outputs do not fit
        with (
            pytest.warns(UserWarning, match="feature consistency is left out, pass layer= to have it: no layer with 7"),
            pytest.raises(ValueError, match="num_classes: expected 7 outputs of the model, got 4"),
        ):
            evaluate_background_bias(cheat(), _batch(), **options)
        return
    with pytest.raises(error, match=match):
        evaluate_background_bias(cheat(), _batch(), **options)


def test_no_telling_which_layer() -> None:
    class Pixel(nn.Module):
        def forward(self, image):
            return image[:, :, 0, 0] * 10

    with pytest.warns(UserWarning, match="feature consistency is left out.*Pixel has no nn.Linear layer"):
        report = evaluate_background_bias(Pixel(), _loader(classes=3), variants=["mixed_rand"])
    assert report.variants["mixed_rand"].feature_consistency is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluate_background_bias(Pixel(), _loader(classes=3), variants=["mixed_rand"], embeddings=False)


def test_foreign_json(tmp_path) -> None:
    path = tmp_path / "r.json"
    path.write_text('{"schema": "torch_bgdebias.report/9"}')
    with pytest.raises(ValueError, match=r"r.json: schema: expected 'torch_bgdebias.report/3', got 'torch_bgdebias.re"):
        BackgroundBiasReport.from_json(path)
    path.write_text('{"schema": "torch_bgdebias.report/1", "model": "x", "colour": 1}')
    with pytest.raises(ValueError, match=r"missing fields \['bg_gap'.*unknown fields \['colour'\]"):
        BackgroundBiasReport.from_json(path)
    path.write_text("not json")
    with pytest.raises(ValueError, match="r.json: expected a report.s JSON file.*it is not JSON: Expecting value"):
        BackgroundBiasReport.from_json(path)
