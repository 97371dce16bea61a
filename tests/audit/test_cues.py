"""What an audit's learners look at: what an object's box explains is taken from the background, from that alone."""

import numpy as np

from torch_bgdebias.audit.cues import views_of
from torch_bgdebias.audit.gathering import Gathered

COUNT = 200


def gathered():
    """Views that all follow the box's left edge, each with some noise of its own."""
    numbers = np.random.default_rng(0)
    box = numbers.normal(size=(COUNT, 4)).astype(np.float32)

    def follower(width):
        return (box[:, :1] + 0.1 * numbers.normal(size=(COUNT, width))).astype(np.float32)

    views = {"box": box, "colours": follower(3), "size": follower(2), "whole light": follower(2)}
    rows = np.arange(COUNT)
    return Gathered(rows % 2, rows, [None] * COUNT, views, np.ones(COUNT, bool), [b""] * COUNT)


def test_what_a_box_explains_is_taken_from_the_background_alone():
    data = gathered()
    edge = data.views["box"][:, 0]
    agreement = {
        view.name: np.abs([np.corrcoef(column, edge)[0, 1] for column in view.features.T]).max()
        for view in views_of(data)
    }
    assert agreement.pop("colours") < 0.05
    assert min(agreement.pop(name) for name in ("box", "size", "whole light")) > 0.9
    assert not agreement


def test_without_boxes_nothing_is_taken():
    data = gathered()
    edge = data.views.pop("box")[:, 0]
    colours = next(view for view in views_of(data) if view.name == "colours")
    assert np.corrcoef(colours.features[:, 0], edge)[0, 1] > 0.9
