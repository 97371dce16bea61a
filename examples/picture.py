"""The README's picture: three objects on their own scene and on another one, and what two models answer.

    python examples/picture.py docs/picture.png

The same network is trained twice on drawn shapes whose scene gives their class away: as they are, and with
`BackgroundSwap`. Takes half a minute.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from torch import nn

from torch_bgdebias import BackgroundSwap
from torch_bgdebias.data import EXAMPLE_CLASSES, draw_scenes, example_loader, make_variant

NAMES = list(EXAMPLE_CLASSES)
RIGHT, WRONG = "#15803d", "#b91c1c"


def train(swap: BackgroundSwap | None, epochs: int = 10) -> nn.Module:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for before, after in ((3, 16), (16, 32), (32, 32), (32, 32)):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(), nn.MaxPool2d(2)]
    model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(32 * 16, 3))
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    loader = example_loader(images_per_class=200)
    for _ in range(epochs):
        for image, label, mask in loader:
            if swap is not None:
                image = swap(image, mask, label)[0]
            loss = nn.functional.cross_entropy(model(image), label)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", type=Path)
    args = parser.parse_args()
    models = {"plain": train(None), "with swap": train(BackgroundSwap("batch"))}

    image, label, mask = next(iter(example_loader(batch_size=300, images_per_class=100, seed=1, shuffle=False)))
    scenes = draw_scenes(100, 64, seed=5, categories=tuple(EXAMPLE_CLASSES.values()))
    other = make_variant(
        image, mask, label, "mixed_next", num_classes=3, generator=torch.Generator().manual_seed(0),
        backgrounds=scenes.images, background_labels=scenes.labels,
    ).image  # fmt: skip
    rows = {"on its own scene": image, "on another scene": other}
    with torch.no_grad():
        answers = {(row, name): model(rows[row]).argmax(1) for row in rows for name, model in models.items()}
    shown = [7, 107, 207]  # one of each class, chosen beforehand

    figure, axes = plt.subplots(2, 3, figsize=(8, 5.6), layout="constrained")
    for (row, images), line in zip(rows.items(), axes, strict=True):
        for index, axis in zip(shown, line, strict=True):
            axis.imshow(images[index].permute(1, 2, 0), interpolation="nearest")
            axis.set_xticks([])
            axis.set_yticks([])
            for place, name in enumerate(models):
                answer = int(answers[row, name][index])
                colour = RIGHT if answer == label[index] else WRONG
                axis.text(0, 69 + 7 * place, f"{name}: {NAMES[answer]}", color=colour, fontsize=11, va="center")
        accuracy = [100 * (answers[row, name] == label).float().mean().item() for name in models]
        words = "\n".join(f"{name}: {value:.0f} % right" for name, value in zip(models, accuracy, strict=True))
        line[0].set_ylabel(f"{row}\n\n{words}", rotation=0, ha="right", va="center", fontsize=11)
    args.picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(args.picture, dpi=110)
    print({key: round(100 * (value == label).float().mean().item(), 1) for key, value in answers.items()})


if __name__ == "__main__":
    main()
