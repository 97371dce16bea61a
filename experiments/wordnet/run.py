"""Which of ImageNet's classes show an object of VOC or COCO? From WordNet's nouns, as the package's table has it.

    python -m experiments.wordnet.run --wordnet /usr/share/wordnet        Debian's wordnet-base, WordNet 3.0

For each class the synsets in ROOTS and everything below them (hyponyms and instances), as far as they are among
ImageNet's 1000 classes, whose ids timm lists. Prints the table of ``torch_bgdebias/backgrounds/objects.py``.
"""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Iterable, Mapping
from pathlib import Path

#: class of VOC or COCO -> noun synsets, by a word and the number of its sense
ROOTS: dict[str, tuple[str, ...]] = {
    "aeroplane": ("airplane 1",),
    "bicycle": ("bicycle 1",),
    "bird": ("bird 1",),
    "boat": ("boat 1", "ship 1"),
    "bottle": ("bottle 1", "jug 1"),
    "bus": ("bus 1",),
    "car": ("car 1",),
    "cat": ("feline 1",),
    "chair": ("chair 1",),
    "cow": ("bovine 1", "Old_World_buffalo 1", "bison 1"),
    "diningtable": ("dining_table 1",),
    "dog": ("dog 1",),
    "horse": ("horse 1",),
    "motorbike": ("motorcycle 1", "motor_scooter 1"),
    "person": ("person 1",),
    "pottedplant": ("flowerpot 1",),
    "sheep": ("sheep 1", "wild_sheep 1"),
    "sofa": ("sofa 1",),
    "train": ("train 1", "locomotive 1", "car 2"),
    "tvmonitor": ("television 2", "television_receiver 1", "monitor 5", "screen 3", "desktop_computer 1"),
    "truck": ("truck 1",),
    "traffic light": ("traffic_light 1",),
    "stop sign": ("street_sign 1",),
    "parking meter": ("parking_meter 1",),
    "bench": ("bench 1",),
    "elephant": ("elephant 1",),
    "bear": ("bear 1",),
    "zebra": ("zebra 1",),
    "giraffe": ("giraffe 1",),
    "backpack": ("backpack 1",),
    "umbrella": ("umbrella 1",),
    "handbag": ("bag 4", "purse 3"),
    "tie": ("necktie 1",),
    "suitcase": ("baggage 1",),
    "frisbee": ("Frisbee 1",),
    "skis": ("ski 1",),
    "snowboard": ("snowboard 1",),
    "sports ball": ("ball 1",),
    "kite": ("kite 3",),
    "baseball bat": ("baseball_bat 1",),
    "baseball glove": ("baseball_glove 1",),
    "skateboard": ("skateboard 1",),
    "surfboard": ("surfboard 1",),
    "tennis racket": ("racket 4",),
    "wine glass": ("glass 2",),
    "cup": ("cup 1", "mug 4"),
    "fork": ("fork 1",),
    "knife": ("knife 1",),
    "spoon": ("spoon 1",),
    "bowl": ("bowl 1", "soup_bowl 1", "mixing_bowl 1"),
    "banana": ("banana 2",),
    "apple": ("apple 1",),
    "sandwich": ("sandwich 1",),
    "orange": ("orange 1",),
    "broccoli": ("broccoli 2",),
    "carrot": ("carrot 3",),
    "hot dog": ("hotdog 2", "hotdog 3"),
    "pizza": ("pizza 1",),
    "donut": ("doughnut 2",),
    "cake": ("cake 3",),
    "bed": ("bed 1",),
    "toilet": ("toilet 2", "toilet_seat 1"),
    "laptop": ("laptop 1",),
    "mouse": ("mouse 4",),
    "remote": ("remote_control 1",),
    "keyboard": ("keyboard 1", "computer_keyboard 1"),
    "cell phone": ("cellular_telephone 1",),
    "microwave": ("microwave 2",),
    "oven": ("oven 1",),
    "toaster": ("toaster 2",),
    "sink": ("sink 1", "washbasin 1", "washbasin 2"),
    "refrigerator": ("refrigerator 1",),
    "fire hydrant": ("fireplug 1",),
    "book": ("book 2", "comic_book 1"),
    "clock": ("clock 1", "watch 1"),
    "vase": ("vase 1",),
    "scissors": ("scissors 1",),
    "teddy bear": ("teddy 1",),
    "hair drier": ("hand_blower 1",),
    "toothbrush": ("toothbrush 1",),
}


class WordNet:
    """The nouns of a WordNet database: ``index.noun`` and ``data.noun``."""

    def __init__(self, folder: Path) -> None:
        self.senses: dict[str, list[str]] = {}
        for line in (folder / "index.noun").read_text().splitlines():
            if not line.startswith(" "):
                word, _, count, *rest = line.split()
                self.senses[word] = rest[len(rest) - int(count) :]
        self.below: dict[str, list[str]] = {}
        for line in (folder / "data.noun").read_text().splitlines():
            if not line.startswith(" "):
                fields = line.split(" | ")[0].split()
                words = int(fields[3], 16)
                pointers = fields[5 + 2 * words :]
                self.below[fields[0]] = [
                    pointers[i + 1] for i in range(0, len(pointers) - 3, 4) if pointers[i] in ("~", "~i")
                ]

    def synset(self, root: str) -> str:
        """The offset of "word number"."""
        word, number = root.rsplit(" ", 1)
        return self.senses[word.lower()][int(number) - 1]

    def under(self, synset: str) -> set[str]:
        """It and everything below it."""
        seen, waiting = {synset}, [synset]
        while waiting:
            for child in self.below[waiting.pop()]:
                if child not in seen:
                    seen.add(child)
                    waiting.append(child)
        return seen


def table(wordnet: WordNet, known: Iterable[str], roots: Mapping[str, tuple[str, ...]] = ROOTS) -> dict[str, list[str]]:
    """Class -> WordNet ids among ``known``, in that list's order."""
    listed = list(known)
    ids = {}
    for name, synsets in roots.items():
        below = {f"n{offset}" for root in synsets for offset in wordnet.under(wordnet.synset(root))}
        ids[name] = [wnid for wnid in listed if wnid in below]
    return ids


def imagenet() -> list[str]:
    """ImageNet's 1000 ids, as timm lists them."""
    from timm.data import ImageNetInfo

    return list(ImageNetInfo("imagenet-1k").label_names())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wordnet", type=Path, default=Path("/usr/share/wordnet"), help="folder of data.noun")
    args = parser.parse_args()
    for name, ids in table(WordNet(args.wordnet), imagenet()).items():
        numbers = textwrap.wrap(" ".join(wnid[1:] for wnid in ids), 104)
        if len(numbers) < 2:
            print(f'    "{name}": "{numbers[0] if numbers else ""}",')
        else:
            print(f'    "{name}": """\n        ' + "\n        ".join(numbers) + '\n    """,')


if __name__ == "__main__":
    main()
