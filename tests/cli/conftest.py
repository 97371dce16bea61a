"""A folder to measure, for every test of a command."""

from __future__ import annotations

import sys

import pytest
from probe_command import write_place


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A masked folder of three classes whose backgrounds are their colour, a module of networks, and we are there."""
    write_place(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    sys.modules.pop("trial_nets", None)
    yield tmp_path
    sys.modules.pop("trial_nets", None)
