"""What is said of a measurement that cannot be relied on as it is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from probe_pages import make_report
from probe_toy import cheat, toy_loader

from torch_bgdebias.probe import compare_models, evaluate_background_bias, summarise
from torch_bgdebias.probe.results.issues import images_needed, issues


def words(report, **settings):
    return [issue.what for issue in issues([replace(report, settings={**report.settings, **settings})])]


def test_nothing_is_said_of_a_sound_measurement() -> None:
    assert issues([make_report()]) == []


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"object_edge_share": 0.9, "object_share": 0.7}, "may be inverted"),
        ({"object_edge_share": 0.4, "object_share": 0.97}, "hardly any background"),
        ({"object_edge_share": 0.0, "object_share": 0.004}, "0.4% of the pictures"),
        ({"max_batches": 3}, "Only 3 batches"),
        ({"changing_images": True}, "changes its images at random"),
        ({"guessed_size": "pictures are resized to 224 x 224, since nothing says"}, "Pictures are resized to 224 x"),
    ],
)
def test_settings_say_what_is_wrong(settings, said) -> None:
    (text,) = words(make_report(), **settings)
    assert said in text


def test_counts_say_what_is_missing() -> None:
    report = make_report()
    report.counts |= {"without_foreground": 300, "without_partner_mixed_same": 7}
    empty, partner = issues([report])
    assert empty.grave
    assert "300 of 400 masks are empty" in empty.what
    assert "7 images had no background of its own class" in partner.what


def test_a_model_that_guesses_is_named_first() -> None:
    report = make_report(same=0.25, rand=0.25, n=100)
    first = issues([report])[0]
    assert first.grave
    assert "guessing among 4 classes gets 25.0%" in first.what
    assert "--labels" in first.remedy


def test_outputs_in_another_order_are_named_in_place_of_guessing() -> None:
    report = make_report(n=100)
    report.images.prediction["original"] = (report.images.label + 1) % 4
    first = issues([report])[0]
    assert first.grave
    assert "0 of 100 images as they are are right, and 100 would be with the outputs in another order" in first.what
    assert first.remedy.startswith("Give logits=lambda output: output[:, ORDER]")
    assert not [issue for issue in issues([report]) if "guessing" in issue.what]


def test_few_images_get_the_number_that_is_needed() -> None:
    report = make_report(n=40)
    (issue,) = issues([report])
    half = (report.bg_gap.high - report.bg_gap.low) / 2
    assert f"About {images_needed(40, half):,} images" in issue.remedy


@pytest.mark.parametrize(
    ("n", "half", "expected"), [(100, 0.1, 400), (100, 0.05, 100), (54, 0.1775, 690), (1, 0.5, 100), (7, 0.05, 7)]
)
def test_the_interval_narrows_with_the_root(n, half, expected) -> None:
    assert images_needed(n, half) == expected


def test_pasting_that_costs_accuracy_is_told() -> None:
    report = make_report()
    for period, expected in ((25, False), (4, True)):  # wrong on a 25th, on a quarter of the pasted pictures
        wrong = np.where(np.arange(400) % period == 0, 3 - report.images.label, report.images.label)
        report.images.prediction |= {"original": report.images.label, "mixed_same": wrong}
        again = summarise(report.images, model="m", class_names=report.class_names)
        assert any("to the pasting alone" in issue.what for issue in issues([again])) is expected


def test_models_that_are_unlike_are_named() -> None:
    first, other = make_report(), make_report("other", first_id=10_000)
    issue = issues([first, other], compare_models([first, other]))[0]
    assert issue.grave
    assert "not measured on the same images" in issue.what
    later = make_report("later", seed=1)
    later.settings["seed"] = 5
    same = make_report()
    assert not any("share" in i.what for i in issues([first, same], compare_models([first, same])))
    assert any("was not measured as" in i.what for i in issues([first, later], compare_models([first, later])))
    part = make_report("part", n=200)
    assert any(
        "share 200 images of 400 and 200" in i.what for i in issues([first, part], compare_models([first, part]))
    )


def test_inverted_masks_are_seen_by_a_measurement() -> None:
    batches = list(toy_loader(40))
    assert not any("inverted" in text for text in words(evaluate_background_bias(cheat(), batches)))
    inverted = [(image, label, 1 - mask) for image, label, mask in batches]
    report = evaluate_background_bias(cheat(), inverted)
    assert report.settings["object_edge_share"] > 0.5
    assert any("may be inverted" in issue.what and issue.grave for issue in issues([report]))


def test_shares_are_of_images_with_an_object() -> None:
    (image, label, mask), *_ = list(toy_loader(40))
    mask = mask.clone()
    mask[0] = 0
    report = evaluate_background_bias(cheat(), [(image, label, mask)])
    inside = (mask[1:, 0] > 0.5).double()
    assert report.settings["object_share"] == pytest.approx(float(inside.mean()), rel=1e-6)
    h, w = inside.shape[1:]
    outer = np.ones((h, w), bool)
    outer[1:-1, 1:-1] = False
    corners = inside[:, [0, 0, -1, -1], [0, -1, 0, -1]].sum(1)  # counted with both of their edges
    expected = (inside[:, outer].sum(1) + corners) / (2 * h + 2 * w)
    assert report.settings["object_edge_share"] == pytest.approx(float(expected.mean()), rel=1e-6)
