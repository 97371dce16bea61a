from __future__ import annotations

import pytest
import torch
from torch import nn

from torch_bgdebias.batch import BatchSpec
from torch_bgdebias.concepts import ActivationStore, ConceptProbe, concept_iou, fit_loce, fit_net2vec


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 5, 3, 2, 1), nn.ReLU(), nn.Conv2d(5, 6, 3, 2, 1), nn.ReLU())


def data(n=9, size=16, seed=0):
    generator = torch.Generator().manual_seed(seed)
    masks = torch.zeros(n, 1, size, size)
    for i in range(n):
        top, left = torch.randint(0, size // 2, (2,), generator=generator).tolist()
        masks[i, :, top : top + size // 2, left : left + size // 2] = 1
    concepts = torch.arange(n) % 3
    images = 0.3 * torch.rand(n, 3, size, size, generator=generator)
    for i, c in enumerate(concepts.tolist()):
        images[i, c] += masks[i, 0]
    return images, masks, concepts


@pytest.mark.parametrize("chunk", [1, 4, 100])
def test_vectors_are_those_of_one_concept_after_another(chunk):
    model, (images, masks, concepts) = net(), data()
    probe = ConceptProbe(model, ["1", "3"], size=16, chunk=chunk, batch_size=4)
    fitted = probe.fit(images, masks, concepts)
    local = probe.fit(images, masks, concepts, method="loce")
    with torch.no_grad():
        maps = {"1": model[:2](images), "3": model(images)}
    for layer, a in maps.items():
        for c in range(3):
            own = concepts == c
            torch.testing.assert_close(fitted.vectors[layer][c], fit_net2vec(a[own], masks[own]), atol=1e-4, rtol=1e-4)
            expected = fit_loce(a[own], masks[own])
            torch.testing.assert_close(local.local[layer][own], expected, atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(local.vectors[layer][c], expected.mean(0), atol=1e-4, rtol=1e-4)
        iou = probe.iou([fitted, local], images, masks, concepts)[layer]
        assert iou.shape == (2, 9)
        torch.testing.assert_close(iou[0], concept_iou(fitted.vectors[layer][concepts], a, masks))
    assert fitted.counts == (3, 3, 3)
    assert fitted.names == ("0", "1", "2")


def test_a_loader_gives_what_tensors_give():
    images, masks, concepts = data()
    probe = ConceptProbe(net(), size=16)
    loader = [(images[i : i + 4], concepts[i : i + 4], masks[i : i + 4]) for i in (0, 4, 8)]
    one, two = probe.fit(images, masks, concepts), probe.fit(loader)
    assert list(one.vectors) == list(probe.layers)
    for layer in one.vectors:
        torch.testing.assert_close(one.vectors[layer], two.vectors[layer], atol=1e-4, rtol=1e-4)


def test_masks_below_one_activation_pixel_are_listed():
    images, masks, concepts = data()
    masks[4] = 0
    masks[4, :, 5, 5:8] = 1  # 3 of 256 pixels: below 1 of 4 x 4, above half of 8 x 8
    masks[[2, 5, 8]] = 0
    probe = ConceptProbe(net(), ["1", "3"], size=16)
    for method in ("net2vec", "loce"):
        fitted = probe.fit(images, masks, concepts, method=method, names=["a", "b", "c"])
        assert fitted.too_small == {"1": [2, 4, 5, 8], "3": [2, 4, 5, 8]}
        assert fitted.vectors["1"][2].isnan().all()
        assert fitted.vectors["1"][:2].isfinite().all()
        iou = probe.iou(fitted, images, masks, concepts)
        assert iou["3"].isnan().nonzero().flatten().tolist() == [2, 4, 5, 8]


def test_errors():
    images, masks, concepts = data()
    probe = ConceptProbe(net(), ["3"], size=16)
    with pytest.raises(ValueError, match="got none of d"):
        probe.fit(images, masks, concepts, names=["a", "b", "c", "d"])
    with pytest.raises(ValueError, match="at least one, got none"):
        probe.fit([])
    with pytest.raises(TypeError, match="expected both"):
        probe.fit(images)
    with pytest.raises(ValueError, match="method"):
        probe.fit(images, masks, concepts, method="pca")
    with pytest.raises(ValueError, match="chunk: expected a whole number of at least 1, got 0"):
        ConceptProbe(net(), ["3"], chunk=0)
    with pytest.warns(DeprecationWarning, match=r"ConceptProbe\(block=...\) is now ConceptProbe\(chunk=...\)"):
        assert ConceptProbe(net(), ["3"], block=7).settings.chunk == 7
    with pytest.raises(ValueError, match="as in the batches before"):
        probe.fit([(i, c, m) for i, c, m in ((images, concepts, masks), (images[..., :8], concepts, masks[..., :8]))])


def test_store():
    store, rows = ActivationStore(), torch.rand(7, 2, 3, 4)
    store.append(rows[:3])
    store.append(rows[3:])
    assert store.shape == (7, 2, 3, 4)
    assert torch.equal(store[2:5], rows[2:5])
    assert torch.equal(store[[6, 0]], rows[[6, 0]])


def test_void_takes_no_part_in_fit_and_iou():
    images, masks, concepts = data()
    void = torch.zeros_like(masks)
    void[:, :, :, 12:] = 1
    probe = ConceptProbe(net(), ["3"], size=16)
    fitted = probe.fit(images, masks, concepts, void=void)
    filled = torch.maximum(masks, void)  # some data sets' masks say object where it is void
    torch.testing.assert_close(probe.fit(images, filled, concepts, void=void).vectors["3"], fitted.vectors["3"])
    assert not torch.allclose(probe.fit(images, masks, concepts).vectors["3"], fitted.vectors["3"], atol=1e-2)
    loader = [{"image": images, "label": concepts, "mask": masks, "void": void}]
    spec = BatchSpec(image="image", label="label", mask="mask")
    torch.testing.assert_close(probe.fit(loader, batch=spec).vectors["3"], fitted.vectors["3"])
    scores = probe.iou(fitted, images, masks, concepts, void=void)["3"]
    torch.testing.assert_close(probe.iou(fitted, images, filled, concepts, void=void)["3"], scores)
    gone = void.clone()
    gone[4] = 1  # nothing known of one image: it says nothing
    assert probe.fit(images, masks, concepts, void=gone).too_small["3"] == [4]
