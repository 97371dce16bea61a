"""Digits on scenes, with cues planted in their backgrounds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from torch_bgdebias.data import mnist_with_masks
from torch_bgdebias.files import category_folders, image_files, read_image

SIDE, BOX = 64, 26


class Composer:
    """Digits in a box of one size, at any place, on any scene: neither box nor background knows the digit."""

    def __init__(self, root: Path, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        digits = mnist_with_masks(root / "mnist")
        self.labels = digits.labels.numpy()
        self.digits = digits.masks[:, 0].numpy()
        self.scenes: list[list[np.ndarray]] = []
        folders = category_folders(root / "sun_scenes")
        self.names = [folder.name for folder in folders]
        for folder in folders:
            paths = image_files(folder)
            self.scenes.append([read_image(path, (SIDE, SIDE)).permute(1, 2, 0).numpy() for path in paths])

    def picture(self, digit: int, cue: str = "", category: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """A picture (SIDE, SIDE, 3) and its mask, with a cue in its background."""
        random = self.random
        scenes = self.scenes[random.integers(len(self.scenes)) if category is None else category]
        scene = scenes[random.integers(len(scenes))].astype(np.float32)
        if random.random() < 0.5:
            scene = scene[:, ::-1]
        if cue == "place":  # one camera's view, in changing light
            scene = np.roll(self.scenes[5][0], tuple(random.integers(-2, 3, 2)), (0, 1)) * random.uniform(0.8, 1.2)
        if cue == "tint":
            scene = scene + np.array([12, 0, -12], np.float32)
        if cue == "blur":
            blurred = Image.fromarray(scene.clip(0, 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(0.8))
            scene = np.asarray(blurred).astype(np.float32)
        stroke = self.digits[random.choice(np.flatnonzero(self.labels == digit))]
        rows, columns = np.flatnonzero(stroke.any(1)), np.flatnonzero(stroke.any(0))
        cut = Image.fromarray(stroke[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]).resize((BOX, BOX))
        mask = np.zeros((SIDE, SIDE), np.uint8)
        top, left = random.integers(8, SIDE - BOX - 8, 2)
        mask[top : top + BOX, left : left + BOX] = np.where(np.asarray(cut) > 100, 255, 0)
        mask[[top, top + BOX - 1], left + BOX // 2] = mask[top + BOX // 2, [left, left + BOX - 1]] = 255
        scene = np.where(mask[..., None] > 0, 250, scene).clip(0, 255).astype(np.uint8)
        if cue == "mark":
            scene[:8, -8:] = (255, 255, 255)
        return scene, mask
