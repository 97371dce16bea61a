"""Names that help texts and checks share are those of the files that use them."""

from __future__ import annotations

import ast
from pathlib import Path

from torch_bgdebias import names
from torch_bgdebias.cli.demo.training import METHODS
from torch_bgdebias.concepts.probe import METHODS as CONCEPT_METHODS
from torch_bgdebias.probe.callback import METRICS
from torch_bgdebias.probe.passes.attributions import ATTRIBUTIONS


def test_one_list_of_each():
    assert (*names.ATTRIBUTIONS, "isnet") == ATTRIBUTIONS
    assert names.METRICS == METRICS
    assert names.CONCEPT_METHODS == CONCEPT_METHODS
    assert list(names.DEMO_METHODS) == list(METHODS)
    assert set(names.MIXED_VARIANTS) | set(names.OBJECTLESS_VARIANTS) < set(names.VARIANTS)


def test_the_file_imports_nothing():
    nodes = ast.walk(ast.parse(Path(names.__file__).read_text()))
    assert not [node for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)]
