"""Modules in the manner of public ones train with the callbacks, zero lines changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.callbacks import clients

#: what refuses, for a reason that the module gives: in a frozen backbone under no_grad there is nothing to explain
REFUSED = {("solo-learn, linear", "isnet"): "a part of the model runs under torch.no_grad"}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", clients.CALLBACKS)
@pytest.mark.parametrize("title", clients.CLIENTS)
def test_client(title, name):
    client = clients.CLIENTS[title]
    if (title, name) in REFUSED:
        with pytest.raises(RuntimeError, match=REFUSED[title, name]):
            clients.fit(client, name)
        return
    trainer = clients.fit(client, name)
    assert trainer.global_step == 3
    assert any("/" in key for key in trainer.callback_metrics)
    assert "training_step" not in vars(trainer.lightning_module)


def test_the_table_of_the_documentation_is_the_one_that_is_printed():
    """What each callback has to be told; the cells themselves are tested above."""
    page = (Path(__file__).resolve().parents[2] / "docs" / "trainers.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| ") and line.split(" |")[0][2:] in clients.CLIENTS]
    assert [row.split(" |")[0][2:] for row in rows] == list(clients.CLIENTS)
    for row, (title, client) in zip(rows, clients.CLIENTS.items(), strict=True):
        cells = ["refuses" if (title, name) in REFUSED else clients.needs(client, name) for name in clients.CALLBACKS]
        assert row == f"| {title} | {' | '.join(cells)} |"
