"""The wiring of longer products on the page, against products of matrices."""

import re

import numpy as np
import pytest

from igcnn.inspection import make_live
from igcnn.inspection.page import render_page
from igcnn.inspection.steps import read_steps
from igcnn.inspection.wiring import wire
from igcnn.inspection.wiring_drawing import draw

LOOSE = dict(net="igcv2", depth=5, width=12, factors="4,6", condition="loose")


@pytest.fixture(scope="module")
def made(reported, browser, tmp_path_factory):
    """A page of products of three factors, and its subject."""
    subject, report = reported(**LOOSE)
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(render_page(report, make_live(subject)), encoding="utf-8")
    page, complaints = browser.new_page(), []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(path.as_uri())
    page.wait_for_selector("html[data-ready]", state="attached")
    yield page, subject, report["wirings"][1]
    page.close()
    assert complaints == []


def factors(wiring):
    """The 0-1 matrix of each factor and of the permutation after it."""
    channels, groups = wiring["channels"], wiring["groups"]
    for k, (G, order) in enumerate(zip(groups, wiring["permutations"], strict=True)):
        C, D = channels[k : k + 2]
        yield np.kron(np.eye(G), np.ones((D // G, C // G))), np.eye(D)[order]


def test_paths_of_a_product(made):
    page, _, wiring = made
    matrices = [matrix for pair in factors(wiring) for matrix in pair]
    ways = np.linalg.multi_dot(matrices[::-1])
    assert ways.max() > 1  # not strict
    figure = page.locator("figure.wiring").nth(1)
    for i, o in ((0, 0), (5, 3), (11, 7), (2, 10)):
        figure.locator(".from").fill(str(i))
        figure.locator(".to").fill(str(o))
        text = figure.locator(".told").text_content()
        count = int(ways[o, i])
        assert f"to output channel {o}: {count} path" in text
        listed = text.split(", by ")[1].split("; ")
        assert len(set(listed)) == min(4, count) + (count > 4)
        # what is lit is on a path from i to o
        before, after = [np.eye(len(matrices[0][0]))[i]], [np.eye(len(ways))[o]]
        for matrix in matrices:
            before.append(matrix @ before[-1])
        for matrix in matrices[::-1]:
            after.insert(0, matrix.T @ after[0])
        for k in range(len(wiring["groups"])):
            on = before[2 * k + 2] * after[2 * k + 2] > 0
            wires = figure.locator(f"[data-stage='{k + 1}'] path")
            lit = wires.evaluate_all("wires => wires.map((wire) => wire.classList.contains('on'))")
            assert lit == on.tolist()
    figure.locator(".clear").click()


def test_what_a_product_carries(made):
    page, subject, wiring = made
    layer = wiring["units"][0]
    steps = read_steps(subject.network, subject.normalised(subject.pixels[None]), subject.label)
    own = [s for s in steps.steps if s["layer"] == layer and s["op"] == "convolution"]
    x = np.abs(steps.values[own[0]["inputs"][0]]).mean(axis=(1, 2)).astype(float)
    matrices = []
    for step, (blocks, order) in zip(own, factors(wiring), strict=True):
        w = np.abs(steps.arrays[step["arrays"]["w"]]).sum(axis=(2, 3)).astype(float)
        dense = np.zeros_like(blocks)
        dense[blocks > 0] = w.ravel()  # rows of a block hold a partition's inputs in order
        matrices.append((dense, order))
    totals, best, gains = [x], x, [np.ones(wiring["channels"][-1])]
    for dense, order in matrices:
        totals.append(order @ dense @ totals[-1])
        best = order @ (dense * best).max(axis=1)
    for dense, order in matrices[:0:-1]:
        gains.insert(0, (order @ dense).T @ gains[0])
    figure = page.locator("figure.wiring").nth(1)
    figure.locator(".carried").select_option(layer)
    text = figure.locator(".carried-told").text_content()
    assert f"{100 * best.max() / totals[-1].sum():.2f} %" in text
    i, *outputs, o = (int(n) for n in re.findall(r"(?:output|channel) (\d+)", text))
    amount, at = x[i], i
    for (dense, order), q in zip(matrices, outputs, strict=True):
        amount *= dense[q, at]
        at = int(np.argmax(order[:, q]))
    assert at == o
    assert amount == pytest.approx(best.max(), rel=1e-5)
    for k, gain in enumerate(gains):
        amounts = totals[k + 1] * gain
        widths = figure.locator(f"[data-stage='{k + 1}'] path").evaluate_all(
            "wires => wires.map((wire) => +wire.style.getPropertyValue('--carried'))"
        )
        assert widths == pytest.approx(amounts / amounts.max(), abs=1e-3)


def test_bundles_of_a_wide_product(made):
    """More than 256 channels are drawn in bundles; a bundle with a channel on the path is lit."""
    page, *_ = made
    wiring = wire([512, 512, 512, 512], [512, 64, 8]).to_json()
    data = {
        "channels": wiring["channels"],
        "groups": wiring["groups"],
        "partitions": wiring["bundles"]["partitions"],
    }
    attributes = " ".join(f'data-{k}="{" ".join(map(str, v))}"' for k, v in data.items())
    page.evaluate(
        """(html) => {
          document.body.insertAdjacentHTML("beforeend", html);
          wiring(document.querySelector("#wide"));
        }""",
        f'<figure id="wide" {attributes}><input class="from"><input class="to">'
        f'<button class="clear"></button><p class="told"></p>{draw(wiring)}</figure>',
    )
    figure = page.locator("#wide")
    figure.locator(".from").fill("100")
    before = np.eye(512)[100]
    sizes, partitions = wiring["bundles"]["partitions"], [*wiring["groups"], wiring["groups"][0]]
    for k, (blocks, order) in enumerate(factors(wiring)):
        outputs = blocks @ before
        before = order @ outputs
        pairs = {
            (
                q // (512 // partitions[k]) // sizes[k],
                c // (512 // partitions[k + 1]) // sizes[k + 1],
            )
            for c, q in enumerate(wiring["permutations"][k])
            if outputs[q]
        }
        lit = figure.locator(f"[data-stage='{k + 1}'] path.on").evaluate_all(
            "wires => wires.map(({ dataset }) => [+dataset.from, +dataset.to])"
        )
        assert set(map(tuple, lit)) == pairs
