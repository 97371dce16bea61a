from __future__ import annotations

import sys
import types
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from torch_bgdebias.data import MaskEncoding, MaskEncodingError
from torch_bgdebias.data.with_masks import WithMasks


def items(count: int = 4, size: int = 8) -> tuple[list, torch.Tensor]:
    """Images that are their mask, so that whatever moves one must move the other."""
    generator = torch.Generator().manual_seed(0)
    mask = (torch.rand(count, size, size, generator=generator) > 0.5).float()
    return [(m.expand(3, -1, -1).clone(), i) for i, m in enumerate(mask)], mask


def together(transform, times: int = 8) -> int:
    """How often something moved; image and mask always alike."""
    pairs, mask = items()
    data, moved = WithMasks(pairs, mask, transform), 0
    for i in range(len(data)):
        for _ in range(times):
            image, label, cover = data[i]
            assert label == i
            assert type(image) is type(cover) is torch.Tensor
            assert torch.equal(image, cover.expand_as(image))
            moved += image.shape[1:] != mask[i].shape or not torch.equal(cover[0], mask[i])
    return moved


def test_without_a_transform_nothing_moves():
    assert together(None) == 0


def test_any_function():
    assert together(lambda image, mask: (image.flip(-1), mask.flip(-1))) == 32


def test_torchvision():
    v2 = pytest.importorskip("torchvision.transforms.v2")
    assert 0 < together(v2.RandomHorizontalFlip()) < 32
    assert together(v2.Compose([v2.RandomCrop(4), v2.RandomVerticalFlip()])) == 32


def test_kornia():
    augmentation = pytest.importorskip("kornia.augmentation")
    assert 0 < together(augmentation.AugmentationSequential(augmentation.RandomHorizontalFlip(p=0.5))) < 32


def test_albumentations_way_of_calling(monkeypatch):
    """Arrays with channels last go in by name, and come back so; with the package itself where it is installed."""
    stand_in = types.ModuleType("albumentations")

    class Flip:
        def __call__(self, *, image, mask):
            assert isinstance(image, np.ndarray)
            assert image.shape == (8, 8, 3)
            assert mask.shape == (8, 8)
            return {"image": image[:, ::-1], "mask": mask[:, ::-1]}

    Flip.__module__ = "albumentations.core"
    monkeypatch.setitem(sys.modules, "albumentations", stand_in)
    assert together(Flip()) == 32


def test_the_package_albumentations():
    A = pytest.importorskip("albumentations")
    assert 0 < together(A.Compose([A.HorizontalFlip(p=0.5)])) < 32


def test_albumentations_gets_bytes_where_there_are_bytes():
    """A.Normalize() divides by 255: images in [0, 1] would come out almost black, without a word."""
    A = pytest.importorskip("albumentations")
    rng = np.random.default_rng(0)
    cover = (rng.random((3, 12, 10)) > 0.5).astype(np.uint8) * 255
    pictures = [(Image.fromarray(np.repeat(c[..., None], 3, 2)), i) for i, c in enumerate(cover)]
    data = WithMasks(pictures, list(cover), A.Compose([A.RandomCrop(8, 8), A.HorizontalFlip(), A.Normalize()]))
    mean, std = (torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    for i in range(3):
        image, label, mask = data[i]
        assert label == i
        assert mask.unique().tolist() == [0, 1]
        torch.testing.assert_close(image * std + mean, mask.expand(3, -1, -1), atol=1e-5, rtol=0)
    image, _, mask = WithMasks(pictures, list(cover), A.Compose([A.VerticalFlip(p=1)]))[0]
    assert torch.equal(image, mask.expand(3, -1, -1))


def test_pictures_arrays_and_functions_of_the_index():
    picture = Image.fromarray(np.full((4, 6, 3), 51, np.uint8))
    data = WithMasks([(picture, "a"), (np.asarray(picture), "b")], lambda i: np.full((4, 6), [0, 255][i], np.uint8))
    for i, name in enumerate("ab"):
        image, label, mask = data[i]
        assert label == name
        assert image.shape == (3, 4, 6)
        assert image.unique().tolist() == [pytest.approx(0.2)]
        assert mask.unique().tolist() == [float(i)]


def test_what_does_not_belong_together_is_named():
    pairs, mask = items()
    with pytest.raises(ValueError, match="masks: expected one for each of 4 items, got 3"):
        WithMasks(pairs, mask[:3])
    with pytest.raises(
        ValueError, match=r"mask 0: expected the image's size \(8, 8\), got \(4, 4\); move what resizes"
    ):
        WithMasks(pairs, mask[:, :4, :4])[0]


def voc_mask(path, label: int = 3) -> Image.Image:
    """A palette picture as VOC has them: label numbers, 255 where it is void."""
    values = np.zeros((8, 8), np.uint8)
    values[2:6, 2:6], values[2] = label, 255
    picture = Image.fromarray(values, "P")
    picture.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0] + [0] * (251 * 3) + [224, 224, 192])
    picture.save(path)
    return picture


def test_files_are_read_by_what_they_hold(tmp_path):
    """Their numbers divided by 255 would leave the void alone as object."""
    voc_mask(tmp_path / "a.png")
    wanted = torch.zeros(8, 8)
    wanted[3:6, 2:6] = 1
    for path in (tmp_path / "a.png", str(tmp_path / "a.png")):
        _, _, mask = WithMasks([(torch.rand(3, 8, 8), 0)], [path])[0]
        assert torch.equal(mask, wanted[None])


@pytest.mark.parametrize("kind", ["picture", "bytes", "numbers"])
def test_label_numbers_are_no_shades(kind, tmp_path):
    picture = voc_mask(tmp_path / "a.png")
    mask = {"picture": picture, "bytes": np.asarray(picture), "numbers": torch.tensor(np.array(picture)).long()}[kind]
    with pytest.raises(ValueError, match=r"mask 0: .* got label numbers \(0, 3, 255\); pass the file's path"):
        WithMasks([(torch.rand(3, 8, 8), 0)], [mask])[0]


def test_bytes_of_nought_and_one_are_a_mask():
    mask = np.zeros((8, 8), np.uint8)
    mask[2:4] = 1
    _, _, cover = WithMasks([(torch.rand(3, 8, 8), 0)], [mask])[0]
    assert (cover.max(), cover.sum()) == (1, 16)
    shades = (np.arange(64).reshape(8, 8) * 4).astype(np.uint8)
    assert WithMasks([(torch.rand(3, 8, 8), 0)], [shades])[0][2].max() == torch.tensor(252 / 255)


def test_a_palette_shows_its_colours():
    """Its indices taken for shades of grey would be another picture."""
    picture = Image.fromarray(np.tile(np.arange(2, dtype=np.uint8), (4, 2)), "P")
    picture.putpalette([255, 0, 0, 0, 0, 255])
    image, _, _ = WithMasks([(picture, 0)], torch.ones(1, 4, 4))[0]
    assert image[:, 0, 0].tolist() == [1, 0, 0]
    assert image[:, 0, 1].tolist() == [0, 0, 1]
    deep = Image.fromarray(np.full((4, 4), 3000, np.uint16))
    with pytest.raises(TypeError, match=r"image: expected a picture of 8 bits a channel, got mode 'I;16'"):
        WithMasks([(deep, 0)], torch.ones(1, 4, 4))[0]


MASKS_THAT_SAY_NOTHING = {
    "green object": (np.eye(8, dtype=np.uint8)[..., None] * np.array([0, 255, 0], np.uint8), "got colours"),
    "floats up to 255": (torch.eye(8) * 255, r"got \[0, 255\]"),
    "not a number": (torch.full((8, 8), float("nan")), r"got \[nan, nan\]"),
    "unknown as -1": (torch.eye(8).long() * 2 - 1, r"got label numbers \(-1, 1\)"),
}


@pytest.mark.parametrize("name", MASKS_THAT_SAY_NOTHING)
def test_masks_that_do_not_say_what_is_object_are_refused(name):
    mask, text = MASKS_THAT_SAY_NOTHING[name]
    with pytest.raises(ValueError, match=f"mask 0: .*{text}"):
        WithMasks([(torch.rand(3, 8, 8), 0)], [mask])[0]


def test_a_grey_mask_may_have_three_channels():
    grey = np.repeat(np.eye(8, dtype=np.uint8)[..., None] * 255, 3, 2)
    for mask in (grey, Image.fromarray(grey), Image.fromarray(grey).convert("RGBA")):
        assert torch.equal(WithMasks([(torch.rand(3, 8, 8), 0)], [mask])[0][2][0], torch.eye(8))


def test_what_a_file_alone_does_not_tell_can_be_said(tmp_path):
    """A grey mask of few shades: its error names ``encoding``, and so does the class."""
    values = np.zeros((8, 8), np.uint8)
    values[2:6, 2:6], values[3:5, 3:5] = 128, 255
    Image.fromarray(values).save(tmp_path / "a.png")
    pairs = [(torch.rand(3, 8, 8), 0)]
    with pytest.raises(MaskEncodingError, match='say encoding="soft"'):
        WithMasks(pairs, [tmp_path / "a.png"])[0]
    for encoding, inner in (("soft", 128 / 255), (MaskEncoding("index", foreground=(255,)), 0.0)):
        _, _, mask = WithMasks(pairs, [tmp_path / "a.png"], encoding=encoding)[0]
        assert float(mask[0, 2, 2]) == pytest.approx(inner)
        assert float(mask[0, 3, 3]) == 1.0
    with pytest.raises(ValueError, match="encoding: expected one of"):
        WithMasks(pairs, [tmp_path / "a.png"], encoding="soggy")


def written(folder, values):
    """Paths of masks with these values."""
    paths = [folder / f"{number}.png" for number in range(len(values))]
    for path, value in zip(paths, values, strict=True):
        Image.fromarray(np.asarray(value, np.uint8)).save(path)
    return paths


def test_paths_are_looked_at_together(tmp_path):
    """Inverted files, several labels in a picture and void were taken as they came."""
    inside = np.zeros((16, 16), bool)
    inside[4:10, 4:12] = True
    pictures = [(torch.rand(3, 16, 16), 0)] * 4
    with pytest.raises(ValueError, match=r"masks: masks \(4 looked at.* inverted\?"):
        WithMasks(pictures, written(tmp_path, [~inside * 255] * 4))
    data = WithMasks(pictures, written(tmp_path, [~inside] * 4), encoding=MaskEncoding(foreground=(0,)))
    np.testing.assert_array_equal(data[0][2][0].numpy() > 0.5, inside)
    two = np.where(inside, np.where(np.arange(16) < 7, 7, 15), 0)
    two[15] = 255
    with pytest.warns(UserWarning, match="masks") as caught:
        data = WithMasks(pictures, list(map(str, written(tmp_path, [two] * 4))))
    messages = [str(warning.message) for warning in caught]
    assert any("masks hold several labels in a picture" in text and "7, 15" in text for text in messages)
    assert any("some pixels are void" in text for text in messages)
    assert data[0][2].sum() == inside.sum()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        paths = written(tmp_path, [inside * 255] * 4)
        assert WithMasks(pictures, paths)[3][2].sum() == inside.sum()
        assert WithMasks(pictures, paths.__getitem__)[3][2].sum() == inside.sum()
    own = WithMasks(pictures, written(tmp_path, [two] * 4), encoding=MaskEncoding("index", (15,), ()))
    assert own[0][2].sum() == (two == 15).sum()


def test_what_an_interpolation_rounds_beyond_1_is_1():
    mask = torch.nn.functional.interpolate(torch.ones(1, 1, 100, 100), (37, 41), mode="bilinear", antialias=True)[0]
    assert float(mask.max()) > 1
    assert float(WithMasks([(torch.rand(3, 37, 41), 0)], [mask])[0][2].max()) == 1
    with pytest.raises(ValueError, match=r"numbers from 0 to 1.* got \[1.01, 1.01\]"):
        WithMasks([(torch.rand(3, 37, 41), 0)], [mask * 1.01])[0]
