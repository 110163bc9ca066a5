"""The page computes: every change that a reader can make has NumPy's consequences."""

import re

import numpy as np
import pytest
from PIL import Image

from igcnn import Tensor
from igcnn.functional import cross_entropy
from igcnn.inspection import Subject, make_live, make_report
from igcnn.inspection.page import render_page
from igcnn.inspection.steps import read_steps
from igcnn.kernels.permutation import permutation_index
from igcnn.layers import undisturbed

SETTINGS = dict(net="resnet_igc", depth=8, L=4, M=2)
UNIT = "g1_b1_p2_two1"


@pytest.fixture(scope="module")
def subjects(reported):
    """Two checkpoints of a network on one image."""
    first, report = reported(**SETTINGS)
    second = Subject(
        **vars(first) | {"network": first.network.to_dtype("float32"), "checkpoint": "b"}
    )
    rng = np.random.default_rng(8)
    for tensor in second.network.parameters():
        tensor.data += rng.normal(0, 0.05, tensor.shape).astype(np.float32)
    return first, second, report


@pytest.fixture(scope="module")
def address(subjects, tmp_path_factory):
    first, second, report = subjects
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(render_page(report, make_live(first, [second])), encoding="utf-8")
    return path.as_uri()


@pytest.fixture
def page(browser, address):
    complaints = []
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(address)
    page.wait_for_selector("html[data-ready]", state="attached")
    yield page
    page.close()
    assert complaints == []


def settled(page):
    """Wait until everything that was asked for is computed, and return the results."""
    page.wait_for_function("() => !busy && !waiting.size")
    return page.evaluate("""live.results.map(({ probabilities, loss, label, gradients }) =>
      ({ probabilities: [...probabilities], loss, label, gradient: [...gradients[0]] }))""")


def numpy_of(subject, pixels=None, label=None):
    """Probabilities and loss of a subject's network."""
    x = subject.normalised((subject.pixels if pixels is None else pixels)[None])
    with undisturbed(subject.network, training=False):
        logits = subject.network(x)
    powers = np.exp(logits.data[0] - logits.data[0].max())
    label = subject.label if label is None else label
    return powers / powers.sum(), float(cross_entropy(logits, np.array([label])).data)


def same(found, expected):
    probabilities, loss = expected
    assert found["probabilities"] == pytest.approx(probabilities, rel=1e-4, abs=1e-6)
    assert found["loss"] == pytest.approx(loss, rel=1e-4, abs=1e-5)


def opened(page, layer):
    card = page.locator(f"#layer-{layer}")
    card.locator("summary").first.click()
    card.locator("canvas").first.wait_for()
    return card


def choose(card, *index):
    for name, place in zip(("channel", "row", "column"), index, strict=True):
        card.get_by_label(f"{name} of the number").fill(str(place))


def test_it_says_how_well_it_agrees_with_numpy(page, subjects):
    text = page.locator("#check").text_content()
    ulps = int(re.search(r"agrees with NumPy to (\d+) ulp", text)[1])
    assert 0 < ulps < 40
    same(settled(page)[0], numpy_of(subjects[0]))
    # a wrong number is noticed
    assert page.evaluate("""() => {
      const wrong = structuredClone(data.models[0].check);
      wrong.tensors[5].values.numbers[3] += 1e-3 * wrong.tensors[5].values.largest;
      return agreement(wrong, live.results[0]).worst;
    }""") == pytest.approx(1e-3 * 2**23, rel=1.01)


@pytest.mark.parametrize("drop", [False, True], ids=["opened", "dropped"])
def test_an_image_of_ones_own(page, subjects, tmp_path, drop):
    pixels = np.random.default_rng(4).integers(0, 256, subjects[0].pixels.shape, np.uint8)
    path = tmp_path / "own.png"
    Image.fromarray(pixels.transpose(1, 2, 0)).save(path)
    if drop:
        page.evaluate(
            """async (bytes) => {
              const moved = new DataTransfer();
              moved.items.add(new File([new Uint8Array(bytes)], "own.png", { type: "image/png" }));
              document.querySelector("figure.image").dispatchEvent(
                new DragEvent("drop", { dataTransfer: moved, bubbles: true, cancelable: true }));
            }""",
            list(path.read_bytes()),
        )
    else:
        page.locator("#file").set_input_files(path)
    page.get_by_text("own.png, cut to a square").wait_for()
    same(settled(page)[0], numpy_of(subjects[0], pixels))
    page.locator("#reset").click()
    same(settled(page)[0], numpy_of(subjects[0]))


def test_a_file_that_is_no_picture(page, tmp_path):
    path = tmp_path / "text.png"
    path.write_text("no picture")
    page.locator("#file").set_input_files(path)
    page.get_by_text("text.png is not a picture that this browser can read").wait_for()


def test_drawing(page, subjects):
    page.locator("#brush").fill("1")
    page.locator("#color").fill("#ff8000")
    box = page.locator("#image").bounding_box()
    side = subjects[0].pixels.shape[1]
    page.mouse.click(box["x"] + 5.5 / side * box["width"], box["y"] + 3.5 / side * box["height"])
    pixels = subjects[0].pixels.copy()
    pixels[:, 3, 5] = 255, 128, 0
    same(settled(page)[0], numpy_of(subjects[0], pixels))


def test_a_class(page, subjects):
    page.locator("#label").select_option(label="cat & dog")
    found = settled(page)[0]
    assert found["label"] == 0
    same(found, numpy_of(subjects[0], label=0))
    assert page.locator("#answers .chosen th").text_content() == "cat & dog"


def test_a_silenced_channel_and_undo(page, subjects):
    first, *_ = subjects
    card = opened(page, f"{UNIT}_bn")
    choose(card, 5, 1, 2)
    card.get_by_role("button", name="Silence channel 5").click()
    found = settled(page)[0]
    silenced = first.network.to_dtype("float32")
    state = silenced.state_dict()
    for name in (f"{UNIT}_bn_gamma", f"{UNIT}_bn_beta"):
        state[name][5] = 0
    silenced.load_state_dict(state)
    other = Subject(**vars(first) | {"network": silenced})
    same(found, numpy_of(other))
    steps = read_steps(silenced, first.normalised(first.pixels[None]), first.label)
    assert found["gradient"] == pytest.approx(steps.gradients[0].ravel(), rel=1e-3, abs=1e-6)
    assert "because its channel is silenced" in card.locator(".lines").text_content()
    assert f"{UNIT}_bn: silenced channel 5" in page.locator("#changes").text_content()
    page.locator("#undo").click()
    same(settled(page)[0], numpy_of(first))
    assert page.locator("#changes").is_hidden()


def test_a_changed_weight(page, subjects):
    first, *_ = subjects
    card = opened(page, UNIT)
    card.get_by_label("place in the array").fill("7")
    gradient = float(card.locator(".editor .quiet").text_content().split()[-1].replace("−", "-"))
    card.get_by_label("value of the weight").fill("1.5")
    changed = first.network.to_dtype("float32")
    dict(changed.named_parameters())[f"{UNIT}_conv1_weight"].data.ravel()[7] = 1.5
    same(settled(page)[0], numpy_of(Subject(**vars(first) | {"network": changed})))
    assert f"{UNIT}_conv1_weight[7] is 1.5, was" in page.locator("#changes").text_content()
    x = first.normalised(first.pixels[None])
    with undisturbed(first.network, training=False):
        cross_entropy(first.network(x), np.array([first.label])).backward()
        parameters = dict(first.network.named_parameters())
        expected = parameters[f"{UNIT}_conv1_weight"].grad.ravel()[7]
    assert gradient == pytest.approx(float(expected), rel=1e-3)


@pytest.mark.parametrize("layer", [UNIT, "g2_b1_p0_line_conv", f"{UNIT}_bn", "g2_b1_relu"])
def test_a_number_is_written_out(page, subjects, layer):
    first, *_ = subjects
    steps = read_steps(first.network, first.normalised(first.pixels[None]), first.label)
    number = [step["output"] for step in steps.steps if step["layer"] == layer][-1]
    card = opened(page, layer)
    choose(card, 3, 2, 4)
    lines = card.locator(".lines .sum")
    told = [float(text.replace("−", "-")) for text in lines.locator("b").all_text_contents()[1::2]]
    value = float(steps.values[number][3, 2, 4])
    assert told[-1] == pytest.approx(value, rel=1e-4, abs=1e-6)
    for line, value in zip(lines.all(), told, strict=True):
        terms = line.locator(".term").all_text_contents()
        if terms:
            text = line.text_content().replace("−", "-")
            rest = re.search(r"\+ (\S+) \(the other", text)
            pairs = (term.replace("−", "-").split(" · ") for term in terms)
            total = sum(float(a) * float(b) for a, b in pairs) + float(rest[1] if rest else 0)
            assert total == pytest.approx(value, abs=0.02)
    assert len(told) == (2 if layer == UNIT else 1)
    reached = re.search(r"reaches it is (\S+)\. ", card.locator(".lines").text_content())
    gradient = float(steps.gradients[number][3, 2, 4])
    assert float(reached[1].replace("−", "-")) == pytest.approx(gradient, rel=1e-3, abs=1e-7)


@pytest.mark.parametrize("index", [(0, 0, 0), (3, 2, 4), (1, 7, 7)])
def test_the_receptive_field_is_where_gradients_come_from(page, subjects, index):
    first, *_ = subjects
    layer = "g2_b1_p0_line_conv"
    image = Tensor(first.normalised(first.pixels[None]), requires_grad=True)
    with undisturbed(first.network, training=False):
        children = first.network.children()
        x = children["g1_b1"](children["g0"](image))
        y = children["g2_b1"].children()["p0_line"].children()["conv"](x)
        cotangent = np.zeros(y.shape, np.float32)
        cotangent[0, :, *index[1:]] = 1
        y.backward(cotangent)
    rows, columns = (np.flatnonzero(image.grad[0].any(axis=axes)) for axes in ((0, 2), (0, 1)))
    card = opened(page, layer)
    choose(card, *index)
    size = f"{rows.max() - rows.min() + 1}×{columns.max() - columns.min() + 1} pixels"
    assert size in card.locator(".lines").text_content()
    style = page.locator("#field").get_attribute("style")
    side = first.pixels.shape[1]
    assert float(re.search(r"top: ([\d.]+)%", style)[1]) == pytest.approx(100 * rows.min() / side)
    left = float(re.search(r"left: ([\d.]+)%", style)[1])
    assert left == pytest.approx(100 * columns.min() / side)


def test_pointing_at_a_map_tells_its_values(page, subjects):
    card = opened(page, UNIT)
    first, *_ = subjects
    steps = read_steps(first.network, first.normalised(first.pixels[None]), first.label)
    number = [step["output"] for step in steps.steps if step["layer"] == UNIT][-1]
    drawn = card.locator("canvas").first
    drawn.scroll_into_view_if_needed()
    box = drawn.bounding_box()
    pixel = box["width"] / drawn.evaluate("canvas => canvas.width")
    # the second map of the first row: after a gap
    place = {"x": (17 + 4.5) * pixel, "y": 2.5 * pixel}
    drawn.hover(position=place)
    text = card.locator(".pointed").text_content().replace("−", "-")
    assert text.startswith("channel 1, row 2, column 4: ")
    assert float(text.split(": ")[1]) == pytest.approx(steps.values[number][1, 2, 4], rel=1e-4)
    drawn.click(position=place)
    assert "y[1, 2, 4]" in card.locator(".lines").text_content()


def test_two_checkpoints_beside_each_other(page, subjects):
    first, second, _ = subjects
    page.locator("#beside").select_option(label="b")
    own, other = settled(page)
    same(own, numpy_of(first))
    same(other, numpy_of(second))
    card = opened(page, UNIT)
    captions = card.locator("figcaption").all_text_contents()
    assert captions[1].startswith("b")
    assert captions[2].startswith("difference: second minus first")
    cells = page.locator("#answers tr").first.locator("td").all_text_contents()
    more = 100 * (other["probabilities"][0] - own["probabilities"][0])
    told = float(re.search(r"\(\+?(.*) %\)", cells[2])[1].replace("−", "-"))
    assert told == pytest.approx(more, abs=0.011)
    page.locator("#beside").select_option(label="none")
    page.locator("#model").fill("1")
    same(settled(page)[0], numpy_of(second))
    assert page.locator("#model-name").text_content() == "b"
    assert "agrees with NumPy" in page.locator("#check").text_content()


def test_which_pixels_decided(page, subjects):
    first, *_ = subjects
    page.locator("#shown").select_option("product")
    steps = read_steps(first.network, first.normalised(first.pixels[None]), first.label)
    expected = (steps.gradients[0] * steps.values[0]).sum(axis=0).ravel()
    assert page.evaluate('[...saliency("product")]') == pytest.approx(expected, rel=1e-3, abs=1e-6)
    page.locator("#shown").select_option("occlusion")
    page.get_by_text("Squares of 2 pixels").wait_for()
    found = page.evaluate("ask('occlude', { ...jobOf(0), side: 2 }).then(({ fall }) => [...fall])")
    whole = numpy_of(first)[0][first.label]
    pixels = first.pixels.astype(np.float32)
    for i, j in ((0, 0), (4, 10), (14, 14)):
        covered = pixels.copy()
        covered[:, i : i + 2, j : j + 2] = first.mean[:, None, None]
        less = whole - numpy_of(first, covered)[0][first.label]
        assert found[i * 16 + j] == pytest.approx(less, abs=1e-5)


def test_the_wiring_says_what_carries_most(page, subjects):
    first, *_ = subjects
    steps = read_steps(first.network, first.normalised(first.pixels[None]), first.label)
    one, two = (step for step in steps.steps if step["layer"] == UNIT)
    x = np.abs(steps.values[one["inputs"][0]]).mean(axis=(1, 2))
    w1, w2 = (np.abs(steps.arrays[step["arrays"]["w"]]) for step in (one, two))
    C, K, L, S = len(w1), w2.shape[1], one["groups"], two["groups"]
    interleave, restore = permutation_index(C, L), permutation_index(C, S)
    amounts = {}
    for c in range(C):
        t = restore[c]
        for k in range(K):
            q = interleave[t // K * K + k]
            for m in range(w1.shape[1]):
                i = q // (C // L) * w1.shape[1] + m
                amounts[i, q, t, c] = w2[t, k, 0, 0] * w1[q, m].sum() * x[i]
    best = max(amounts, key=amounts.get)
    share = 100 * amounts[best] / sum(amounts.values())
    figure = page.locator("figure.wiring").nth(1)
    figure.locator(".carried").select_option(UNIT)
    text = figure.locator(".carried-told").text_content()
    assert tuple(map(int, re.findall(r"(?:input|output|channel) (\d+)", text))) == best
    assert f"{share:.2f} %" in text


def test_the_table_of_layers(page, subjects):
    table = page.locator("table.layers")
    page.locator("#filter").fill("g2_")
    shown = table.locator("tr[data-layer]:visible")
    assert all("g2_" in name for name in shown.evaluate_all("r => r.map(e => e.dataset.layer)"))
    assert table.locator("tr.stage:visible").all_text_contents() == ["Stage 2"]
    page.locator("#filter").fill("")
    names = "rows => rows.map((row) => row.dataset.layer)"
    before = table.locator("tr[data-layer]").evaluate_all(names)
    button = table.get_by_role("button", name="multiply-adds")
    button.click()
    macs = table.locator("tr[data-layer]").evaluate_all("rows => rows.map((r) => +r.dataset.macs)")
    assert macs == sorted(macs, reverse=True)
    button.click()
    button.click()
    assert table.locator("tr[data-layer]").evaluate_all(names) == before
    assert table.locator("tr.stage:visible").count() == 5


def test_the_drawing_links_to_the_layers(page):
    drawing = page.locator("svg.network")
    assert drawing.locator("a").count() == 2 + 3 * 3 + 2 + 1
    # of three blocks, and around the projections of two
    assert drawing.locator(".shortcut").count() == 3 + 2
    drawing.get_by_role("link", name=re.compile("^g2_b1_p2_two2: interleaved unit")).click()
    assert page.locator("#layer-g2_b1_p2_two2").evaluate("card => card.open")


def test_what_cannot_be_computed_says_so(reported, monkeypatch):
    subject, report = reported(**SETTINGS)
    monkeypatch.setattr("igcnn.inspection.live.MOST_MACS", 1000)
    page = render_page(report, make_live(subject))
    assert "Not computed in this page: an image takes" in page
    assert 'class="maps" src="data:' in page
    assert 'id="live"' not in page
    monkeypatch.undo()
    monkeypatch.setattr("igcnn.inspection.live.MOST_BYTES", 1000)
    assert "would make the page too large" in render_page(report, make_live(subject))


def test_checkpoints_that_do_not_fit_are_named(subjects, monkeypatch):
    first, second, _ = subjects
    room = len(make_live(first).data["models"][0]["weights"])
    monkeypatch.setattr("igcnn.inspection.live.MOST_BYTES", room + 10)
    live = make_live(first, [second])
    assert live.reason == "left out, too large or with other classes: b"
    assert len(live.data["models"]) == 1


def test_the_report_is_not_changed_by_it(subjects):
    first, _, report = subjects
    make_live(first)
    assert make_report(first, [])["answers"] == report["answers"]


def test_a_notebook_shows_it_in_a_sandbox(browser, subjects):
    first, *_ = subjects
    html = first._repr_html_()
    assert html.startswith('<iframe sandbox="allow-scripts" srcdoc=')
    complaints = []
    page = browser.new_page()
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.set_content(f"<!doctype html><title>notebook</title>{html}")
    frame = page.frames[1]
    frame.wait_for_selector("html[data-ready]", state="attached")
    assert "agrees with NumPy" in frame.locator("#check").text_content()
    frame.locator("#label").select_option(label="cat & dog")
    same(settled(frame)[0], numpy_of(first, label=0))
    frame.locator("svg.network").get_by_role("link", name=re.compile("^g2_b1_p2_two2:")).click()
    card = frame.locator("#layer-g2_b1_p2_two2")
    card.locator("canvas").wait_for()
    choose(card, 1, 0, 0)
    assert "y[1, 0, 0]" in card.locator(".lines").text_content()
    page.close()
    assert complaints == []


def test_a_notebook_says_what_it_cannot_compute(subjects, monkeypatch):
    monkeypatch.setattr("igcnn.inspection.live.MOST_MACS", 1000)
    assert "Not computed in this notebook: an image takes" in subjects[0]._repr_html_()
