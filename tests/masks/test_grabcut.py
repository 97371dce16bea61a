"""`grabcut_masks`: finds an object of its own colour, is deterministic, and defines its degenerate results."""

from __future__ import annotations

import builtins
import sys

import hostile
import pytest
import torch

pytest.importorskip("cv2", reason="OpenCV is not installed (extra opencv)")

from torch_bgdebias.data import MaskedImageFolder, grabcut_masks


def scene(n=2, size=48):
    """A noisy red disc, off the centre, on noisy blue ground."""
    g = torch.Generator().manual_seed(0)
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    truth = torch.stack([((y - 22 - 3 * i) ** 2 + (x - 24) ** 2 < 12**2) for i in range(n)])[:, None].float()
    red, blue = torch.tensor([0.8, 0.2, 0.1]).view(3, 1, 1), torch.tensor([0.1, 0.3, 0.7]).view(3, 1, 1)
    image = truth * red + (1 - truth) * blue + 0.05 * torch.randn(n, 3, size, size, generator=g)
    return image.clamp(0, 1), truth


def iou(a, b):
    a, b = a > 0.5, b > 0.5
    return float((a & b).sum() / (a | b).sum())


def test_finds_the_object():
    image, truth = scene()
    masks = grabcut_masks(image)
    assert masks.shape == (2, 1, 48, 48)
    assert masks.dtype == torch.float32
    assert set(masks.unique().tolist()) == {0.0, 1.0}
    assert iou(masks, truth) > 0.97


def test_bytes_and_floats_agree():
    image, _ = scene()
    raw = image.mul(255).round().to(torch.uint8)
    assert torch.equal(grabcut_masks(raw), grabcut_masks(raw.float() / 255))
    assert torch.equal(grabcut_masks(raw.to(memory_format=torch.channels_last)), grabcut_masks(raw))


def test_a_mask_depends_on_its_picture_alone():
    image = torch.rand(3, 3, 40, 40, generator=torch.Generator().manual_seed(1))
    together = grabcut_masks(image)
    assert torch.equal(together, grabcut_masks(image))
    assert torch.equal(together[1:], torch.cat([grabcut_masks(image[1:2]), grabcut_masks(image[2:])]))


def test_rectangles():
    image, truth = scene()
    for rect in ((8, 8, 42, 42), [(8, 8, 42, 42), (10, 9, 44, 41)], torch.tensor([8, 8, 42, 42])):
        masks = grabcut_masks(image, rect)
        assert iou(masks, truth) > 0.97
        assert masks[:, :, :8].max() == 0


def test_degenerate_pictures_give_the_rectangle():
    inner = torch.zeros(1, 1, 40, 40)
    inner[:, :, 2:38, 2:38] = 1
    assert torch.equal(grabcut_masks(torch.full((1, 3, 40, 40), 0.5)), inner), "one colour"
    assert grabcut_masks(scene()[0], (0, 0, 48, 48)).min() == 1, "a rectangle that holds everything"
    assert grabcut_masks(torch.rand(1, 3, 1, 1)).shape == (1, 1, 1, 1)
    assert grabcut_masks(torch.rand(1, 3, 2, 3)).isfinite().all()
    assert grabcut_masks(torch.rand(0, 3, 8, 8)).shape == (0, 1, 8, 8)


def test_no_foreground_found_gives_the_rectangle():
    """The rectangle holds only what the border holds too: GrabCut calls it all background."""
    image = torch.zeros(1, 3, 32, 32)
    image[..., ::2] = 1
    masks = grabcut_masks(image, (14, 14, 16, 16))
    assert masks.sum() == 4
    assert masks[0, 0, 14:16, 14:16].min() == 1


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"images": torch.zeros(3, 8, 8)}, ValueError, r"images: expected shape \(B, 3, H, W\)"),
        (
            {"images": torch.zeros(2, 1, 8, 8)},
            ValueError,
            r"images: expected shape \(B, 3, H, W\), got .*\(2, 1, 8, 8\)",
        ),
        ({"images": torch.zeros(2, 3, 8, 8).long()}, TypeError, r"images: expected a uint8 or float tensor"),
        ({"images": torch.full((2, 3, 8, 8), 255.0)}, ValueError, r"images: expected values in \[0, 1\]"),
        ({"images": torch.full((2, 3, 8, 8), float("nan"))}, ValueError, r"images: expected finite values"),
        ({"iterations": 0}, ValueError, r"iterations: expected a whole number of at least 1, got 0"),
        ({"margin": 0.0}, ValueError, r"margin: expected a share in \(0, 0.5\), got 0.0"),
        ({"margin": 0.6}, ValueError, r"margin: expected a share in \(0, 0.5\), got 0.6"),
        (
            {"rect": (4, 4, 4, 8)},
            ValueError,
            r"rect: expected 0 <= top < bottom <= 8 .* got \(4, 4, 4, 8\) for picture 0",
        ),
        ({"rect": (0, 0, 9, 8)}, ValueError, r"rect: expected 0 <= top < bottom <= 8"),
        ({"rect": [(0, 0, 8, 8)] * 3}, ValueError, r"rect: expected \(top, left, bottom, right\) .* one or 2 of them"),
        ({"rect": (0.1, 0.1, 0.9, 0.9)}, ValueError, r"in whole pixels"),
        ({"mask": None}, TypeError, "mask"),
    ],
)
def test_bad_input(arguments, error, text):
    with pytest.raises(error, match=text):
        grabcut_masks(**({"images": torch.rand(2, 3, 8, 8)} | arguments))


def test_without_opencv_the_extra_is_named(monkeypatch):
    real = builtins.__import__

    def refuse(name, *rest, **more):
        if name == "cv2":
            raise ImportError("No module named 'cv2'")
        return real(name, *rest, **more)

    monkeypatch.delitem(sys.modules, "cv2")
    monkeypatch.setitem(sys.modules, "cv2", None)
    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ImportError, match=r"grabcut_masks needs cv2.*torch_bgdebias\[opencv\]"):
        grabcut_masks(torch.rand(1, 3, 8, 8))


def test_on_photographs_it_beats_the_whole_picture(shared_data):
    data = MaskedImageFolder(shared_data("voc_objects"), min_foreground=0.1, classes=["aeroplane", "sheep", "bird"])
    scores, whole = [], []
    for i in range(0, len(data), len(data) // 9):
        image, _, truth = data[i]
        scores.append(iou(grabcut_masks(image[None], iterations=2)[0], truth))
        whole.append(float(truth.mean()))
    assert sum(scores) / len(scores) > sum(whole) / len(whole) + 0.1


@hostile.wrong(images={name: hostile.IMAGES[name] for name in ("NaN", "infinite")})
def test_wrong_images_are_named(wrong):
    """Bytes are taken; the others have words of their own, in the table above."""
    wrong.refused_by(lambda images: grabcut_masks(images, iterations=1), images=torch.rand(2, 3, 12, 12))
