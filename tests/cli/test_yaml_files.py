"""Settings in YAML: bombs are refused by name before anything is unfolded, honest aliases pass."""

from __future__ import annotations

import resource

import pytest
import yaml

from torch_bgdebias import cli
from torch_bgdebias.cli.yaml_files import require_bounded


def bomb(levels: int) -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, levels)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (bomb(9), "at most 100000 values with their aliases unfolded, got more"),
        ("a: &a [1, *a]", r"no alias inside of what it stands for, got \*a"),
        ("a: " + "[" * 65 + "]" * 65, "at most 64 nested levels"),
        ("a: " + "[" * 100_000, "at most 64 nested levels"),
        ("a: " + "x" * 2**24, f"at most {2**24} bytes of settings, got {2**24 + 3}"),
        ("a: [" + "1," * 100_000 + "]", "at most 100000 values"),
    ],
)
def test_bombs_are_refused_by_name(tmp_path, text, message):
    path = tmp_path / "bomb.yaml"
    path.write_text(text)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match=rf"--config: .*bomb\.yaml: expected {message}"):
        require_bounded(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**18, "more than 256 MiB"


def test_a_bomb_ends_the_command(tmp_path, capsys):
    path = tmp_path / "bomb.yaml"
    path.write_text("model: {class_path: x}\n" + bomb(9))
    assert cli.main(["train", f"--config={path}"]) == 1
    assert f"--config: {path}: expected at most 100000 values" in capsys.readouterr().err


def test_what_is_no_bomb_passes(tmp_path):
    path = tmp_path / "train.yaml"
    shared = {"size": 8, "mean": [0.5] * 3}
    for text in (
        yaml.safe_dump({"train": shared, "val": shared, "test": [shared] * 4}),  # with aliases
        bomb(5),  # 66,429 values
        "a: [" + "1," * 90_000 + "]",
        "a: " + "[" * 60 + "]" * 60,
        "",
    ):
        path.write_text(text)
        require_bounded(path)


@pytest.mark.parametrize("content", [b"a: [1", b"\xff\xfe\x00", b"*nothing", b"a: b: c", b"%YAML 9\n---\n!!python/x 1"])
def test_what_is_no_yaml_is_left_to_its_reader(tmp_path, content):
    (tmp_path / "x.yaml").write_bytes(content)
    require_bounded(tmp_path / "x.yaml")
