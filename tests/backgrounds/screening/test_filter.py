"""Filtering by a classifier: a small network trained here looks at backgrounds with and without its classes."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn.functional import cross_entropy

from torch_bgdebias.backgrounds.forbidden import ForbiddenDraws, ForbiddenPairs
from torch_bgdebias.backgrounds.sampling import ClassOrder
from torch_bgdebias.backgrounds.screening.classes import ClassNames
from torch_bgdebias.backgrounds.screening.viewer import Viewer
from torch_bgdebias.swap import BackgroundBank, BackgroundSwap, StreamedBackgroundBank, sample_swap_params

NAMES = ["plain", "square", "bar", "cross"]


def pictures(n_per_class: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise of 16 x 16, with nothing, a square, a bar or a cross of one bright colour at a random place."""
    g = torch.Generator().manual_seed(seed)
    label = torch.arange(4).repeat_interleave(n_per_class)
    image = torch.rand(len(label), 3, 16, 16, generator=g) * 0.3
    for one, kind in zip(image, label.tolist(), strict=True):
        y, x = (int(v) for v in torch.randint(1, 9, (2,), generator=g))
        if kind == 1:
            one[:, y : y + 6, x : x + 6] = 1
        elif kind == 2:
            one[:, y : y + 2, :] = 1
        elif kind == 3:
            one[:, y + 2 : y + 4, :] = 1
            one[:, :, x + 2 : x + 4] = 1
    return (image * 255).round().to(torch.uint8), label


@pytest.fixture(scope="module")
def network() -> nn.Module:
    """Trained until it tells the four kinds of new pictures apart."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(),
        nn.MaxPool2d(2), nn.Conv2d(32, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(32, 4),
    )  # fmt: skip
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    image, label = pictures(100, 1)
    for step in range(150):
        pick = torch.randint(len(label), (64,), generator=torch.Generator().manual_seed(step))
        optimiser.zero_grad()
        cross_entropy(model(image[pick].float() / 255), label[pick]).backward()
        optimiser.step()
    model.train()  # the filter must not rely on evaluation mode
    return model


class Counting(nn.Module):
    """Counts the images that reach a model."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.shown = 0

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        self.shown += len(image)
        return self.model(image)


def test_a_trained_network_finds_what_is_forbidden(network, tmp_path):
    image, label = pictures(25, 2)
    bank = BackgroundBank(image, label, mean=[0.5] * 3, std=[0.5] * 3, classes=NAMES)
    clean = bank.filter(network, ["square", "cross"], top_k=1, class_names=NAMES, cache=tmp_path)
    assert len(bank) == 100
    kept = torch.bincount(clean.labels, minlength=4).tolist()
    assert kept[0] >= 23
    assert kept[2] >= 23
    assert kept[1] + kept[3] <= 4
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


def test_what_was_seen_is_kept_by_content_and_weights(network, tmp_path):
    counting = Counting(network)
    image, _ = pictures(6, 5)
    bank = BackgroundBank(image)
    options = {"class_names": NAMES, "cache": tmp_path}
    first = bank.filter(counting, ["square"], 1, **options)
    assert counting.shown == 24 + 1  # one to count the classes
    again = bank.filter(counting, ["square"], 1, **options)
    assert torch.equal(again.images, first.images)
    bank.filter(counting, ["bar"], 2, **options)  # other classes and a larger k: nothing to look at
    assert counting.shown == 25
    more = BackgroundBank(torch.cat([image.flip(0), pictures(1, 9)[0]]))
    more.filter(counting, ["square"], 1, **options)  # the same images elsewhere, four new ones
    assert counting.shown == 29
    with torch.no_grad():
        counting.model[-1].bias[0] += 1e-3
    bank.filter(counting, ["square"], 1, **options)  # other weights
    assert counting.shown == 29 + 25
    bank.filter(counting, ["square"], 1, size=8, **options)  # another size
    assert counting.shown == 29 + 50
    for path in tmp_path.glob("*.pt"):
        path.write_bytes(b"broken")
    with pytest.warns(UserWarning, match="cannot be read .*looks at all images again"):
        bank.filter(counting, ["square"], 1, **options)
    assert counting.shown == 29 + 75
    assert not list(tmp_path.glob("*.part"))


def test_the_cache_folder_follows_the_environment(network, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    BackgroundBank(pictures(1, 0)[0]).filter(network, [1], 1)
    assert len(list((tmp_path / "torch_bgdebias/seen").glob("*.pt"))) == 1


def oracle(table: dict[int, torch.Tensor], labels: torch.Tensor, foreground: int, exclude: int | None) -> set[int]:
    allowed = torch.ones(len(labels), dtype=torch.bool)
    if foreground in table:
        allowed &= ~table[foreground]
    if exclude is not None:
        allowed &= labels != exclude
    return set(allowed.nonzero().flatten().tolist())


@pytest.mark.parametrize("excluding", [False, True])
def test_draws_are_uniform_over_what_is_allowed(excluding, device):
    g = torch.Generator().manual_seed(0)
    labels = torch.randint(4, (23,), generator=g)
    table = {2: torch.rand(23, generator=g) < 0.5, 5: torch.zeros(23, dtype=torch.bool), 9: torch.ones(23) > 0}
    table[9][3] = False
    order = ClassOrder.of(labels.to(device))
    draws = ForbiddenDraws.of(ForbiddenPairs.of(table), order.order, 23, device)
    for foreground in (2, 5, 9, 0, -1, 11):
        for excluded in (0, 3, 8) if excluding else (None,):
            exclude = None if excluded is None else torch.full((4000,), excluded, device=device)
            asked = torch.full((4000,), foreground, device=device)
            drawn = draws.draw(asked, order, exclude, generator=torch.Generator(device).manual_seed(1)).cpu()
            expected = oracle(table, labels, foreground, excluded)
            assert set(drawn.flatten().tolist()) == (expected or {-1})
            if expected:
                counts = torch.bincount(drawn.flatten(), minlength=23)[sorted(expected)].double()
                share = 4000 / len(expected)
                assert ((counts - share).abs() < 5 * share**0.5).all()
            cells = draws.draw(asked[:50], order, None if exclude is None else exclude[:50], 4)
            if len(expected) >= 4:
                assert all(len(set(row)) == 4 for row in cells.tolist())


def test_pairs_select_and_join():
    g = torch.Generator().manual_seed(2)
    table = {4: torch.rand(30, generator=g) < 0.3, 1: torch.rand(30, generator=g) < 0.6}
    other = {1: torch.rand(30, generator=g) < 0.2, 6: torch.rand(30, generator=g) < 0.2}
    both = ForbiddenPairs.of(table).joined(ForbiddenPairs.of(other))
    expected = ForbiddenPairs.of({1: table[1] | other[1], 4: table[4], 6: other[6]})
    assert all(torch.equal(a, b) for a, b in zip(both, expected, strict=True))
    chosen = torch.tensor([7, 0, 29, 3, 3])
    taken = ForbiddenPairs.of({label: hit[chosen] for label, hit in table.items()})
    assert all(torch.equal(a, b) for a, b in zip(ForbiddenPairs.of(table).select(chosen), taken, strict=True))


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
    kept = (seen != 0).nonzero().flatten()
    assert torch.equal(smaller.images, image[kept])
    assert not meets(kept[smaller.draw(300, foreground_labels=foreground)][:, None])
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


def test_imagenet_classes_by_index_name_and_wordnet_id():
    names = ClassNames(1000)
    assert names.find([9, "ostrich", "Struthio camelus", "n01518878", "Great_White  shark"]) == [9, 2]
    assert names[2] == "great white shark"
    with pytest.raises(KeyError, match=r"'crane' is the name of 2 classes.*n02012849 .*n03126707"):
        names.find(["crane"])
    with pytest.raises(KeyError, match=r"no class is called 'ostritch'; near names: .*ostrich"):
        names.find(["ostritch"])
    with pytest.raises(KeyError, match=r"no class is called 'terrier'; near names: .*terrier"):
        names.find(["terrier"])
    with pytest.raises(KeyError, match=r"expected a class in \[0, 999\], got 1000"):
        names.find([1000])
    with pytest.raises(KeyError, match="WordNet id n00000001 is none of the classifier's 1000 classes"):
        names.find(["n00000001"])
    with pytest.raises(TypeError, match="expected a list of classes, got the text 'ostrich'"):
        names.find("ostrich")
    with pytest.raises(KeyError, match="the names of the 4 outputs are not known: pass class_names"):
        ClassNames(4).find(["square"])
    with pytest.raises(ValueError, match="class_names: expected 3, one an output, got 2"):
        ClassNames(3, ["a", "b"])


def test_timm_models_by_name(monkeypatch, tmp_path):
    """The name goes to timm with pretrained=True; size and normalisation are the model's own."""
    import timm

    made = []
    original = timm.create_model

    def untrained(name, pretrained=False, **options):
        made.append((name, pretrained))
        torch.manual_seed(0)
        return original(name, pretrained=False, **options)

    monkeypatch.setattr(timm, "create_model", untrained)
    bank = BackgroundBank(pictures(2, 0)[0])
    viewer = Viewer("test_vit")
    assert viewer.size == (160, 160)
    seen = viewer.logits(bank.images).topk(5).indices
    never = next(c for c in range(1000) if not (seen == c).any())
    forbidden = [int(seen[3, 4]), never]
    clean = bank.filter("timm:test_vit", forbidden, cache=tmp_path)
    assert made[0] == ("test_vit", True)
    assert len(clean) == int((~torch.isin(seen, torch.tensor(forbidden)).any(1)).sum()) < 8
    assert clean.filters[0].classifier == "test_vit"
    model = viewer.module.eval()
    pixels = nn.functional.interpolate(bank.images / 255, (160, 160), mode="bicubic", antialias=True).clamp(0, 1)
    with torch.no_grad():
        torch.testing.assert_close(viewer.logits(bank.images), model((pixels - 0.5) / 0.5))
    grey = BackgroundBank(bank.images[:, :1])
    assert len(grey.filter("test_vit", [never], cache=tmp_path)) > 0
    with pytest.raises(ValueError, match="timm has no model 'resnet51'; near names: .*resnet50"):
        bank.filter("resnet51", [1])


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


def restricted_bank() -> BackgroundBank:
    bank = BackgroundBank(torch.zeros(40, 3, 8, 8), torch.arange(40) % 4)
    bank.forbid(ForbiddenPairs.of({0: torch.arange(40) < 30, 2: torch.arange(40) > 5}))
    return bank


def test_drawing_reads_nothing_back():
    """On the meta device there is nothing to read: every look at a value raises."""
    bank, label = restricted_bank().to("meta"), torch.zeros(6, dtype=torch.int64, device="meta")
    for pattern in ("paste", "voronoi"):
        for different_class in (True, False):
            params = sample_swap_params((6, 3, 8, 8), label, bank, pattern=pattern, different_class=different_class)
            assert params["index"].shape == (6, 1 if pattern == "paste" else 8)
    assert bank.sample(6, foreground_labels=label)[0].shape == (6, 3, 8, 8)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_no_host_synchronisation_on_a_gpu():
    bank, label = restricted_bank().to("cuda"), torch.tensor([0, 1, 2, 3]).cuda()
    swap = BackgroundSwap(bank, "voronoi")
    image, mask = torch.rand(4, 3, 8, 8).cuda(), torch.zeros(4, 1, 8, 8).cuda()
    swap(image, mask, label)
    torch.cuda.set_sync_debug_mode("error")
    try:
        swap(image, mask, label)
    finally:
        torch.cuda.set_sync_debug_mode("default")
