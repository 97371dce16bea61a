"""Modules in the manner of public ones train with the callbacks, zero lines changed."""

from __future__ import annotations

import pytest

from tests.callbacks import clients

#: what does not work yet, or refuses for a reason that the module gives
REFUSED = {("solo-learn, linear", "isnet")}
LATER = {("Lightning, transfer learning", "probe")}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", clients.CALLBACKS)
@pytest.mark.parametrize("title", clients.CLIENTS)
def test_client(title, name):
    if (title, name) in REFUSED | LATER:
        pytest.xfail("see the table of the documentation")
    trainer = clients.fit(clients.CLIENTS[title], name)
    assert trainer.global_step == 3
    assert any("/" in key for key in trainer.callback_metrics)
    assert "training_step" not in vars(trainer.lightning_module)
