"""What CLAD+ adds is compared with the loss that the module's own step takes."""

from __future__ import annotations

import warnings
from functools import partial

import pytest
import small_training
import torch.nn.functional as F
from small_training import CLASSES, Module

from torch_bgdebias.callbacks import CLADCallback
from torch_bgdebias.swap import BackgroundSwap

fit = partial(small_training.fit, max_epochs=1)


def test_a_module_trained_by_binary_losses_is_told_of_the_softmax_of_clad_plus():
    class Binary(Module):
        def loss_of(self, logits, label):
            return F.binary_cross_entropy_with_logits(logits, F.one_hot(label, CLASSES).float())

        def training_step(self, batch, batch_idx):
            return self.loss_of(self.classify(batch[0]), batch[1])

    text = f"takes binary cross-entropy of {CLASSES} numbers an image, and CLAD"
    with pytest.warns(UserWarning, match=text) as caught:
        fit(Binary(), CLADCallback(BackgroundSwap(), plus=True))
    assert sum(text in str(w.message) for w in caught) == 1
    with warnings.catch_warnings():
        warnings.filterwarnings("error", f".*{text}")
        fit(Binary(), CLADCallback(BackgroundSwap(), plus=True, criterion=Binary().loss_of))
        fit(Binary(), CLADCallback(BackgroundSwap()))
        fit(Module(), CLADCallback(BackgroundSwap(), plus=True))
