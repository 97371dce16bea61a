"""``certify_backgrounds``: every object on backgrounds drawn for it, and what is certified of it."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from probe_toy import SIDE, K, cheat, honest, toy_loader
from torch import nn
from torch.utils.data import DataLoader

from torch_bgdebias.batch import BatchSpec
from torch_bgdebias.metrics import certified_accuracy
from torch_bgdebias.probe import certify_backgrounds

SOURCE = "test pictures"


def shades(n: int = 12) -> torch.Tensor:
    """Backgrounds whose channel 0 is a class in turn."""
    pictures = torch.zeros(n, 3, SIDE, SIDE)
    pictures[:, 0] = (torch.arange(n) % K / 10)[:, None, None]
    pictures[:, 2] = torch.arange(n)[:, None, None] / 100
    return pictures


def test_a_model_that_reads_the_object_and_one_that_reads_the_background():
    sure = certify_backgrounds(honest(), toy_loader(), shades(), source=SOURCE, per_object=4)
    assert sure.certified.accuracy == 1
    assert sure.certified.at_least == pytest.approx(0.05 ** (1 / 40))
    assert sure.right_on == [0, 0, 0, 0, 40]
    fooled = certify_backgrounds(cheat(), toy_loader(), shades(), source=SOURCE, per_object=4)
    assert fooled.certified.accuracy == pytest.approx(1 / K, abs=0.1)
    assert sum(fooled.right_on) == 40
    assert fooled.certified.accuracy * 160 == sum(k * n for k, n in enumerate(fooled.right_on))


def test_draws_do_not_depend_on_batches_and_depend_on_the_seed():
    def one(**options):
        loader = toy_loader(batch_size=options.pop("batch_size", 7))
        return certify_backgrounds(cheat(), loader, shades(), source=SOURCE, per_object=6, **options).right_on

    assert one() == one(batch_size=40) == one(batch_size=1)
    assert one() != one(seed=1)


def test_backgrounds_are_drawn_with_the_same_chance_each_and_anew_for_each_object():
    seen = []

    class Notes(nn.Module):
        def forward(self, image):
            seen.extend((image[:, 2, 0, 0] * 100).round().int().tolist())
            return torch.zeros(len(image), K)

    certify_backgrounds(Notes(), toy_loader(400), shades(5), source=SOURCE, per_object=10)
    counts = np.bincount(seen[:4000], minlength=5)
    assert abs(counts - 800).max() < 4 * np.sqrt(4000 * 0.2 * 0.8)


def test_once_uses_no_background_twice():
    seen = []

    class Notes(nn.Module):
        def forward(self, image):
            seen.extend((image[:, 2, 0, 0] * 100).round().int().tolist())
            return torch.zeros(len(image), K)

    certificate = certify_backgrounds(Notes(), toy_loader(20), shades(40), source=SOURCE, per_object=2, once=True)
    assert set(seen) == set(range(40)), "40 draws that reach 40 backgrounds reach each once"
    assert "none used twice" in certificate.covers()[1]
    with pytest.raises(ValueError, match="got 39 for at least 40 draws; draw fewer for each object"):
        certify_backgrounds(Notes(), toy_loader(20), shades(39), source=SOURCE, per_object=2, once=True)


def test_what_is_left_out_and_classes_and_groups():
    loader = toy_loader(24, batch_size=5)
    loader.dataset.masks[3] = 0
    patients = [str(i // 2) for i in range(24)]
    certificate = certify_backgrounds(honest(), loader, shades(), source=SOURCE, per_object=3, unit=patients)
    assert certificate.counts == {"objects": 23, "units": 12, "without_foreground": 1}
    assert certificate.certified.objects == 12
    assert len(certificate.per_class) == K
    label = loader.dataset.labels[[i for i in range(24) if i != 3]] == 0
    of_class = certified_accuracy(np.ones((int(label.sum()), 3)), confidence=1 - 0.05 / K)
    assert certificate.per_class["0"].at_least == pytest.approx(of_class.at_least)


def test_the_page_and_the_file_say_what_is_covered(tmp_path):
    certificate = certify_backgrounds(honest(), toy_loader(), shades(), source="a <b>folder</b>", name="net")
    page = certificate.to_html(tmp_path / "c.html").read_text(encoding="utf-8")
    assert "With 95 % confidence at least 92.7 % of objects are classified right by net on a background" in page
    assert "It covers nothing else" in page
    assert page.index("92.7 <span") < page.index("Classes, the least certain first") < page.index("What this covers")
    assert "promises no more than that" not in page
    assert "a &lt;b&gt;folder&lt;/b&gt;" in page
    assert "It covers nothing else" in certificate.summary()
    always, never = certificate.right_on[-1], certificate.right_on[0]
    assert f"{always} right on all, {never} on none of their 8 background(s)" in certificate.summary()
    certificate.to_json(tmp_path / "c.json")
    written = json.loads((tmp_path / "c.json").read_text())
    assert written["schema"] == "torch_bgdebias.certificate/1"
    assert written["certified"]["at_least"] == certificate.certified.at_least
    assert any("answers" in line and "not independent" in line for line in written["covers"])


def test_what_cannot_be_certified_is_refused():
    with pytest.raises(ValueError, match="expected one class an image, which is right or wrong, got no labels"):
        certify_backgrounds(honest(), toy_loader(), shades(), source=SOURCE, spec=BatchSpec(label=None))
    with pytest.raises(ValueError, match="got task='multilabel'"):
        certify_backgrounds(honest(), toy_loader(), shades(), source=SOURCE, task="multilabel")
    with pytest.raises(ValueError, match="per_object"):
        certify_backgrounds(honest(), toy_loader(), shades(), source=SOURCE, per_object=0)
    with pytest.raises(ValueError, match=r"label: expected classes in \[0, 2\]"):
        certify_backgrounds(nn.Sequential(nn.Flatten(), nn.Linear(300, 3)), toy_loader(), shades(), source=SOURCE)
    empty = [(torch.zeros(2, 3, 8, 8), torch.zeros(2, dtype=torch.int64), torch.zeros(2, 1, 8, 8))]
    with pytest.raises(ValueError, match="expected at least one image with a foreground"):
        certify_backgrounds(honest(), empty, shades(), source=SOURCE)


def test_the_model_is_left_as_it_was():
    model, state = cheat().train(), torch.random.get_rng_state()
    certify_backgrounds(model, DataLoader(toy_loader().dataset, batch_size=8), shades(), source=SOURCE)
    assert model.training
    assert torch.equal(state, torch.random.get_rng_state())
