import xml.etree.ElementTree as ElementTree
from itertools import pairwise

import pytest

from igcnn.training.curves import draw_curves, ticks

SVG = "{http://www.w3.org/2000/svg}"


def epoch(number, loss=1.0, top1=50.0):
    return {
        "epoch": number,
        "step": 10 * number,
        "train_loss": loss,
        "train_top1": top1,
        "test_loss": loss + 0.5,
        "test_top1": top1 - 5,
    }


@pytest.mark.parametrize("epochs", [1, 2, 400])
def test_the_picture_is_complete(epochs):
    rows = [epoch(i, 2 / i, 100 - 50 / i) for i in range(1, epochs + 1)]
    steps = [{"step": 5 * i, "loss": 3 / i} for i in range(1, 2 * epochs)]
    root = ElementTree.fromstring(draw_curves(steps, rows))
    texts = [element.text for element in root.iter(f"{SVG}text")]
    for text in ("Loss", "Accuracy", "epoch", "cross-entropy", "top-1, %", "training", "test"):
        assert text in texts
    curves = list(root.iter(f"{SVG}polyline")) + list(root.iter(f"{SVG}circle"))
    assert len(curves) == 5
    assert "prefers-color-scheme: dark" in root.find(f"{SVG}style").text


def test_points_stay_inside_the_picture():
    rows = [epoch(1, 900.0, 0.0), epoch(2, 1e-6, 100.0)]
    root = ElementTree.fromstring(draw_curves([], rows))
    _, _, width, height = map(float, root.get("viewBox").split())
    for line in root.iter(f"{SVG}polyline"):
        for point in line.get("points").split():
            x, y = map(float, point.split(","))
            assert 0 <= x <= width
            assert 0 <= y <= height


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (0.3, 0.31), (5, 5), (0, 0), (97.2, 99.4), (0, 400), (1e-9, 1e9)]
)
def test_ticks_are_few_even_and_enclose(low, high):
    values = ticks(low, high)
    steps = {round((b - a) / (values[1] - values[0]), 6) for a, b in pairwise(values)}
    assert steps == {1.0}
    assert values[0] <= low
    assert values[-1] >= high
    assert 2 <= len(values) <= 8
