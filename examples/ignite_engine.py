"""ISNet's heatmap loss in an engine of PyTorch Ignite. python examples/ignite_engine.py

Needs Ignite: pip install pytorch-ignite.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from drawn import colour_decides, loader, network
from ignite.engine import Engine, Events
from ignite.metrics import RunningAverage

from torch_bgdebias import ISNet, ISNetLoss


def main(epochs: int = 4, weight: float = 0.5) -> None:
    torch.manual_seed(0)
    model = network()
    isnet, heatmap_loss = ISNet(model, "selective"), ISNetLoss()
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)

    def step(engine: Engine, batch: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> float:
        image, label, mask = batch
        model.train()
        explanation = isnet.explain(image, create_graph=True)  # the one forward pass: logits and heatmaps
        heatmap = heatmap_loss(explanation.relevance, mask, explanation.hidden)
        loss = (1 - weight) * F.cross_entropy(explanation.logits, label) + weight * heatmap
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    trainer = Engine(step)
    RunningAverage(output_transform=lambda loss: loss).attach(trainer, "loss")

    @trainer.on(Events.EPOCH_COMPLETED)
    def report(engine: Engine) -> None:
        print(f"epoch {engine.state.epoch}: loss {engine.state.metrics['loss']:.3f}")

    trainer.run(loader(), max_epochs=epochs)
    print(f"predictions that no background decides: {100 * colour_decides(model.eval()):.0f} %")


if __name__ == "__main__":
    main()
