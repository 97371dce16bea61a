"""Filtering by a classifier: a small network trained here looks at backgrounds with and without its classes."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from four_kinds import NAMES, pictures
from PIL import Image

from torch_bgdebias.backgrounds import BackgroundBank, StreamedBackgroundBank
from torch_bgdebias.backgrounds.screening.filter import FilterStep
from torch_bgdebias.backgrounds.screening.viewer import Viewer
from torch_bgdebias.swap import BackgroundSwap


def test_a_step_names_the_classes_that_were_seen_alone():
    unseen = {f"bird {i}": 0 for i in range(95)}
    assert str(FilterStep("net", 5, 40, 3, {"ostrich": 3, **unseen})) == "net (top 5) removed 3 of 40 (ostrich in 3)"
    assert str(FilterStep("net", 5, 40, 0, unseen)) == "net (top 5) removed 0 of 40 (none seen)"
    several = {str(i): 9 - i for i in range(7)}
    assert str(FilterStep("net", 5, 40, 9, {**unseen, **several})).endswith(
        "(0 in 9, 1 in 8, 2 in 7, 3 in 6, 4 in 5 and 2 more classes)"
    )


def test_a_trained_network_finds_what_is_forbidden(network, tmp_path):
    image, label = pictures(25, 2)
    bank = BackgroundBank(image, label, mean=[0.5] * 3, std=[0.5] * 3, classes=NAMES)
    clean = bank.filter(network, ["square", "cross"], top_k=1, class_names=NAMES, cache=tmp_path)
    assert len(bank) == 100
    left_by_class = torch.bincount(clean.labels, minlength=4).tolist()
    assert left_by_class[0] >= 23
    assert left_by_class[2] >= 23
    assert left_by_class[1] + left_by_class[3] <= 4
    (step,) = clean.filters
    assert step.before - step.dropped == len(clean)
    assert step.by_class["square"] + step.by_class["cross"] == step.dropped
    with torch.no_grad():  # the slow way: one image after the other
        network.eval()
        seen = [int(network(one[None].float() / 255).argmax()) for one in image]
        network.train()
    assert torch.equal(clean.images, image[torch.tensor([s not in (1, 3) for s in seen])])
    assert clean.classes == tuple(NAMES)
    assert torch.equal(clean.mean, bank.mean)
    assert all(module.training for module in network.modules())


def test_top_k_reaches_further(network):
    image, _ = pictures(10, 3)
    bank = BackgroundBank(image)
    sizes = [len(bank.filter(network, [1], top_k=k, cache=False)) for k in (1, 2)]
    assert sizes[0] > sizes[1] > 0
    with pytest.raises(ValueError, match=r"no background is left: Sequential \(top 4\) removed 40 of 40 \(1 in 40\)"):
        bank.filter(network, [1], top_k=4, cache=False)


def test_an_empty_bank_names_every_filter(network):
    image, _ = pictures(5, 4)
    first = BackgroundBank(image).filter(network, ["square", "bar"], 1, class_names=NAMES, cache=False)
    with pytest.raises(ValueError, match=r"left: Sequential \(top 1\) removed \d+ of 20 .*; then .*of \d+ \(plain in"):
        first.filter(network, ["plain", "cross"], 1, class_names=NAMES, cache=False)
    with pytest.raises(ValueError, match=r"no background is left for foreground class\(es\) \[7\]: Sequential"):
        first.filter(network, {7: NAMES}, 1, class_names=NAMES, cache=False)


def test_foregrounds_never_meet_their_forbidden_classes(network, tmp_path):
    image, label = pictures(20, 6)
    bank = BackgroundBank(image, label)
    lists = {0: ["square"], 1: ["bar", "cross"]}
    careful = bank.filter(network, lists, 1, class_names=NAMES, cache=False)
    assert len(careful) == len(bank)
    assert careful.restricted
    assert not bank.restricted
    seen = Viewer(network).logits(image).argmax(1)
    wrong = {0: (1,), 1: (2, 3), 2: ()}
    foreground = torch.arange(300) % 3

    def meets(index: torch.Tensor) -> bool:
        return any(int(seen[i]) in wrong[int(f)] for row, f in zip(index, foreground, strict=True) for i in row)

    assert meets(bank.draw(300)[:, None])
    assert not meets(careful.draw(300, foreground_labels=foreground)[:, None])
    assert not meets(careful.draw(300, foreground, cells=8, foreground_labels=foreground))
    shown, labels = careful.sample(300, foreground_labels=foreground)
    match = (shown[:, None] * 255 - image[None].float()).abs().flatten(2).amax(2) < 0.1
    assert not meets(match.int().argmax(1)[:, None])
    assert torch.equal(labels, label[match.int().argmax(1)])
    for pattern in ("paste", "voronoi"):
        for different_class in (True, False):
            swap = BackgroundSwap(careful, pattern, different_class=different_class)
            swap(torch.zeros(300, 3, 16, 16), torch.zeros(300, 1, 16, 16), foreground)
            assert swap._params["apply"].all()
            assert not meets(swap._params["index"])
            assert different_class or (bank.labels[swap._params["index"][:, 0]] == foreground).any()
    careful.save(tmp_path / "bank.pt")
    loaded = BackgroundBank.load(tmp_path / "bank.pt")
    assert loaded.filters == careful.filters
    draws = [
        b.draw(300, None, torch.Generator().manual_seed(0), foreground_labels=foreground) for b in (careful, loaded)
    ]
    assert torch.equal(*draws)
    smaller = careful.filter(network, ["plain"], 1, class_names=NAMES, cache=False)  # lists survive a later filter
    not_plain = (seen != 0).nonzero().flatten()
    assert torch.equal(smaller.images, image[not_plain])
    assert not meets(not_plain[smaller.draw(300, foreground_labels=foreground)][:, None])
    assert [step.dropped for step in smaller.filters] == [0, int((seen == 0).sum())]


def test_restricted_banks_ask_for_foregrounds(network):
    image, label = pictures(5, 6)
    careful = BackgroundBank(image, label).filter(network, {0: [1, 2, 3]}, 1, cache=False)
    with pytest.raises(ValueError, match=r"foreground_labels: expected \(n,\), the bank was filtered by foreground"):
        careful.sample(4)
    with pytest.raises(ValueError, match=r"label: expected \(B,\), the bank's backgrounds were filtered"):
        BackgroundSwap(careful, different_class=False)(torch.zeros(2, 3, 16, 16), torch.zeros(2, 1, 16, 16))
    with pytest.raises(ValueError, match=r"filters leave no background for draw\(s\) \[0, 2\]"):
        careful.sample(3, torch.tensor([0, 1, 0]), foreground_labels=torch.tensor([0, 0, 0]))
    careful.sample(3, torch.tensor([0, 1, 0]), foreground_labels=torch.tensor([-1, 0, 5]))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    image, label = pictures(6, 7)
    for number, (one, kind) in enumerate(zip(image, label.tolist(), strict=True)):
        target = tmp_path / "scenes" / f"{number % 2}" / f"{NAMES[kind]}{number}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.asarray(one.permute(1, 2, 0))).save(target)
    return tmp_path / "scenes"


def test_streamed_banks_are_filtered_by_file(network, folder):
    options = {"top_k": 1, "class_names": NAMES, "cache": False}
    bank = StreamedBackgroundBank.from_folder(folder, 16, 7)
    whole = BackgroundBank.from_folder(folder, 16)
    seen = Viewer(network).logits(whole.images).argmax(1)
    clean = bank.filter(network, ["square"], **options)
    assert isinstance(clean, StreamedBackgroundBank)
    assert [p.name for p, s in zip(bank.files.paths, seen, strict=True) if s != 1] == [
        p.name for p in clean.files.paths
    ]
    careful = bank.filter(network, {3: ["bar"]}, **options).filter(network, ["square"], **options)
    assert isinstance(careful, StreamedBackgroundBank)
    again = pickle.loads(pickle.dumps(careful))
    foreground = torch.tensor([3, 4]).repeat(100)
    met = set()
    for _ in range(8):
        careful.refresh(3)
        index = careful.draw(200, foreground_labels=foreground)
        shown = Viewer(network).logits(careful.images).argmax(1)[index]
        assert not (shown[foreground == 3] == 2).any()
        assert not (shown == 1).any()
        met |= set(shown[foreground == 4].tolist())
    assert 2 in met
    again.refresh(3)
    assert again.restricted
    (folder / "0" / "broken.png").write_bytes(b"")
    files = StreamedBackgroundBank.from_folder(folder, 16, 7, on_error="skip")
    with pytest.warns(UserWarning, match="skipped 1 of 25"):
        assert len(files.filter(network, ["square"], **options).files.paths) == len(clean.files.paths)


def test_bad_arguments_are_named(network):
    bank = BackgroundBank(pictures(1, 0)[0])
    with pytest.raises(ValueError, match=r"top_k: expected in \[1, 4\], the classifier's classes, got 5"):
        bank.filter(network, [1], cache=False)
    with pytest.raises(ValueError, match="top_k: expected a whole number of at least 1, got 0"):
        bank.filter(network, [1], 0, cache=False)
    for nothing in ([], {}, {2: []}):
        with pytest.raises(ValueError, match="forbidden: expected at least one class, got none"):
            bank.filter(network, nothing, 1, cache=False)
    with pytest.raises(TypeError, match="expected foreground classes as whole numbers, got 'cow'"):
        bank.filter(network, {"cow": [1]}, 1, cache=False)
    with pytest.raises(TypeError, match="classifier: expected a timm name, a module or a callable, got int 3"):
        bank.filter(3, [1], 1, cache=False)
    with pytest.raises(ValueError, match="expected finite logits, got NaN or infinity from <lambda>"):
        bank.filter(lambda image: torch.full((len(image), 3), float("nan")), [1], 1)
    with pytest.raises(ValueError, match=r"expected logits \(1, K\), got float32 tensor of shape \(1, 3, 16, 16\)"):
        bank.filter(lambda image: image, [1], 1)
    with pytest.raises(ValueError, match=r"expected uint8 or values in \[0, 1\], got \[.*filter before normalising"):
        BackgroundBank(torch.randn(3, 3, 8, 8)).filter(network, [1], 1, cache=False)
    with pytest.raises(ValueError, match="mean, std: expected both or none"):
        bank.filter(network, [1], 1, mean=[0.5] * 3, cache=False)
