"""Options that several commands have are defined once; what two commands call alike and is not the same is listed."""

from __future__ import annotations

import argparse
import ast
from collections import defaultdict
from pathlib import Path

import pytest

from torch_bgdebias.cli import build_parser, options
from torch_bgdebias.cli.options import SHARED, add_options

FOLDER = Path(options.__file__).parent
#: options of one name that mean different things
DIFFERENT = {
    "--backgrounds",  # demo: scenes by category; certify: the source that the bound is about
    "--correlation",  # demo: of class and scene; plan: within a group
    "--groups",  # audit: a pattern of paths; probe: a column
    "--images",  # masks convert: the pictures; plan: a number of them; the shared one: most of them
    "--layer",  # discover: Grad-CAM's; head: the last linear one
    "--prompt",  # backgrounds: a category's; masks: what the object is called
    "--source",  # backgrounds: what makes them; certify: what the certificate calls it
}


def definitions() -> dict[str, list[str]]:
    """The long options that are written out in calls of ``add`` and ``add_argument``, and in which files."""
    places = defaultdict(list)
    for path in sorted(FOLDER.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            called = node.func if isinstance(node, ast.Call) else None
            name = (
                called.id if isinstance(called, ast.Name) else called.attr if isinstance(called, ast.Attribute) else ""
            )
            if name in ("add", "add_argument") and node.args and isinstance(node.args[0], ast.Constant):
                places[node.args[0].value].append(path.relative_to(FOLDER).as_posix())
    return {option: files for option, files in places.items() if option.startswith("--")}


def test_each_option_has_one_place():
    written = definitions()
    shared = {key.partition(" ")[0] for key in SHARED}
    assert len(written) > 30
    twice = {option for option, files in written.items() if len(files) > 1 or option in shared}
    assert twice - {"--version"} == DIFFERENT


def test_shared_options_are_in_use():
    """By more than one command, ``--debug`` apart, which `build_parser` gives to all."""
    used = defaultdict(set)
    parser, _ = build_parser()
    commands = dict(parser.get_default("commands"))
    actions = commands.pop("backgrounds").get_default("commands")
    for name, command in {**commands, **actions}.items():
        for action in command._actions:
            for option in action.option_strings:
                used[option].add(name)
    assert [key for key in SHARED if len(used[key.partition(" ")[0]]) < 2] == []


@pytest.mark.parametrize("key", SHARED)
def test_a_shared_option_can_be_added_and_changed(key):
    parser = argparse.ArgumentParser()
    add_options(parser, key, help="of this command")
    (action,) = parser._actions[1:]
    assert action.option_strings == [key.partition(" ")[0]]
    assert action.help == "of this command"
    assert action.required == SHARED[key].get("required", False)
