"""After a fit the module can be pickled, and both it and the callback copied: nothing of the run hangs on them."""

from __future__ import annotations

import copy
import pickle

import pytest
import small_training as small
import torch

pytestmark = pytest.mark.filterwarnings("ignore")


def outcome(callback) -> tuple[torch.Tensor, list[str]]:
    """What a training with a callback makes of the weights, and what it logs."""
    module = small.Module()
    run = small.fit(module, callback, val=small.loader(), max_epochs=1)
    return small.weights(module), sorted(run.callback_metrics)


@pytest.mark.parametrize("name", small.VARIED)
def test_copies_after_a_fit(name):
    callback, module = small.VARIED[name](), small.Module()
    plain = small.fit(small.Module(), val=small.loader(), max_epochs=1).lightning_module
    run = small.fit(module, callback, val=small.loader(), max_epochs=1)
    assert run.lightning_module is module
    assert set(vars(module)) == set(vars(plain))
    for twin in (pickle.loads(pickle.dumps(run.lightning_module)), copy.deepcopy(module)):
        assert torch.equal(small.weights(twin), small.weights(module))
        assert torch.equal(twin.eval()(small.tensors()[0]), module.eval()(small.tensors()[0]))
        assert all("forward" not in vars(part) for part in twin.modules())
    twin = copy.deepcopy(callback)
    assert twin.state_key == callback.state_key
    weights, logged = outcome(twin)
    expected = outcome(small.VARIED[name]())
    assert torch.equal(weights, expected[0])
    assert logged == expected[1]
