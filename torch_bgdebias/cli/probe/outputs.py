"""Which of the model's outputs is which class of the data."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch_bgdebias.class_names import plain_name
from torch_bgdebias.data.imagenet9 import IMAGENET9_RANGES
from torch_bgdebias.files import first_few
from torch_bgdebias.models import LogitsKey
from torch_bgdebias.superclasses import Superclasses

__all__ = ["Outputs", "outputs_by_name", "read_labels", "settle_outputs"]

NONE_OF_THEM = "none of them"


@dataclass(frozen=True)
class Outputs:
    """How the model's answers are read.

    Attributes:
        labels: the number of each class of the data among ``names``.
        names: of what is scored, K of them.
        logits: where the logits are, or what makes (B, K) of the model's output.
        catch_all: the last one is "none of them", which no picture and no background is.
    """

    labels: list[int]
    names: list[str]
    logits: LogitsKey
    catch_all: bool = False


def read_labels(path: Path, names: Sequence[str]) -> dict[str, list[int]]:
    """The outputs of each class of the data, as a JSON file says; one number is a list of one.

    Classes of the data with the same outputs are one class of the model; that is noted on stderr.

    Raises:
        ValueError: no JSON, not of that form, a class is missing, or two classes share some outputs but not all.
    """
    try:
        given = json.loads(path.read_bytes(), object_pairs_hook=lambda pairs: pairs)  # which finds UTF-8, 16 and 32
    except (ValueError, RecursionError) as error:
        raise ValueError(f"--labels: {path} is not JSON: {error}") from error
    form = 'expected {"class folder": output, ...} or {"class folder": [output, ...], ...} with whole numbers'
    if not isinstance(given, list) or not all(isinstance(pair, tuple) for pair in given):
        raise ValueError(f"--labels: {path}: {form}")
    if twice := [name for name, times in Counter(name for name, _ in given).items() if times > 1]:
        raise ValueError(f"--labels: {path} names {', '.join(twice)} more than once")
    table = {name: value if isinstance(value, list) else [value] for name, value in given}
    for name, outputs in table.items():
        if not outputs or not all(isinstance(x, int) and not isinstance(x, bool) and x >= 0 for x in outputs):
            raise ValueError(f"--labels: {path}: {form}, got {name!r}: {outputs}")
    if absent := [name for name in names if name not in table]:
        raise ValueError(
            f"--labels: {path} has no output for {', '.join(absent[:5])} ({len(absent)} classes); it has "
            f"{first_few(map(repr, table))}"
        )
    owner: dict[int, str] = {}
    for name in names:
        for output in table[name]:
            other = owner.setdefault(output, name)
            if set(table[other]) != set(table[name]):
                raise ValueError(f"--labels: {path} gives output {output} to {other} and to {name}, with others beside")
    for joined in _joined(names, table):
        if len(joined) > 1:
            print(f"bgdebias probe: note: --labels: {' and '.join(joined)} are one class of the model", file=sys.stderr)
    return {name: table[name] for name in names}


def settle_outputs(
    names: Sequence[str],
    count: int,
    *,
    table: dict[str, list[int]] | None,
    known: Sequence[str] | None,
    key: LogitsKey,
    score: str,
    imagenet9: bool,
) -> Outputs:
    """Which output is which class.

    Args:
        names: the data's classes.
        count: the model's outputs.
        table: what ``--labels`` says.
        known: the outputs' own names, from the checkpoint or the published weights.
        key: where the logits are in what the model returns.
        score: how several outputs score one class.
        imagenet9: the data's classes are ImageNet-9's, so that a model of 1000 is mapped as in the challenge.

    Raises:
        ValueError: an output that the model does not have, or there is no telling.
    """
    if table is not None:
        if (largest := max(max(outputs) for outputs in table.values())) >= count:
            worst = next(name for name, outputs in table.items() if largest in outputs)
            raise ValueError(_outside(largest, worst, count))
        if any(len(outputs) > 1 for outputs in table.values()):
            classes = _joined(names, table)
            grouped = Superclasses([table[members[0]] for members in classes], score, key)
            rest = grouped.count(count) > len(classes)
            numbers = {name: number for number, members in enumerate(classes) for name in members}
            titles = [" + ".join(members) for members in classes]
            labels = [numbers[name] for name in names]
            return Outputs(labels, [*titles, *([NONE_OF_THEM] if rest else [])], grouped, rest)
        return _numbered(names, [outputs[0] for outputs in table.values()], count, key)
    if imagenet9 and count == 1000:
        ranges = IMAGENET9_RANGES.values()
        groups = [[output for first, last in some for output in range(first, last + 1)] for some in ranges]
        return Outputs(list(range(len(names))), [*names, NONE_OF_THEM], Superclasses(groups, logits=key), True)
    if known is not None and len(known) == count and (places := outputs_by_name(names, known)) is not None:
        return Outputs(places, list(known), key)
    if len(names) > count:
        raise ValueError(_outside(len(names) - 1, names[-1], count))
    if count != len(names):
        one_more = "; is the first one none of them, as in networks from TensorFlow?" if count == len(names) + 1 else ""
        raise ValueError(
            f"--data: the model has {count} outputs and the data {len(names)} classes ({', '.join(names[:4])}, ...): "
            f"say with --labels FILE which output each class folder is{one_more}"
        )
    if known is not None and len(known) != count:
        print(
            f"bgdebias probe: note: {len(known)} names of outputs are known ({first_few(known, 4)}) and the model has "
            f"{count}: they are passed over, and outputs taken in the order of the class folders",
            file=sys.stderr,
        )
    if known is not None and len(known) == count:
        spelled = {plain_name(name) for name in known}
        strangers = [name for name in names if plain_name(name) not in spelled] or names
        raise ValueError(
            f"--data: the model's outputs are called {first_few(known, 4)}, and {first_few(strangers, 4)} is not among "
            "them: say with --labels FILE which output each class folder is"
        )
    return _numbered(names, list(range(count)), count, key)


def _numbered(names: Sequence[str], labels: list[int], count: int, key: LogitsKey) -> Outputs:
    by_output: dict[int, list[str]] = {}
    for label, name in zip(labels, names, strict=True):
        by_output.setdefault(label, []).append(name)
    return Outputs(labels, [" + ".join(by_output.get(i, [str(i)])) for i in range(count)], key)


def _joined(names: Sequence[str], table: dict[str, list[int]]) -> list[list[str]]:
    """The data's classes, those with the same outputs together, in the order of the first of each."""
    groups: dict[frozenset[int], list[str]] = {}
    for name in names:
        groups.setdefault(frozenset(table[name]), []).append(name)
    return list(groups.values())


def outputs_by_name(names: Sequence[str], output_names: Sequence[str]) -> list[int] | None:
    """The output of each class by its name; ``None`` where a name is missing, or stands for two outputs.

    Where names do not agree as they are written, capitals, blanks and dashes count alike.
    """
    for spelled in (str, plain_name):
        times = Counter(map(spelled, output_names))
        places = {spelled(name): i for i, name in enumerate(output_names) if times[spelled(name)] == 1}
        if all(spelled(name) in places for name in names) and len({spelled(name) for name in names}) == len(names):
            return [places[spelled(name)] for name in names]
    return None


def _outside(label: int, name: str, count: int) -> str:
    return (
        f"--data: label {label} ({name}) is outside the model's {count} outputs; --labels FILE says which output each "
        "class folder is"
    )
