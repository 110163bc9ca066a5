"""The page in a real browser: nothing asked of the network, no error, mouse and keyboard."""

import pytest


@pytest.fixture(scope="module")
def made(rendered):
    return rendered(net="resnet_igc", depth=8, L=6, M=2)


@pytest.fixture(scope="module")
def report(made):
    return made[0]


@pytest.fixture(scope="module")
def address(made, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(made[1], encoding="utf-8")
    return path.as_uri()


@pytest.fixture
def opened(browser, address):
    """Return a function that opens the page; afterwards it must have asked for nothing else."""
    complaints, requests, contexts = [], [], []

    def open_page(**options):
        context = browser.new_context(**{"viewport": {"width": 1200, "height": 900}, **options})
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(address)
        page.wait_for_selector("html[data-ready]", state="attached")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []
    assert {url for url in requests if not url.startswith(("data:", "blob:"))} == {address}


def test_every_layer_and_every_number(opened, report):
    page = opened()
    names = [layer["name"] for layer in report["layers"]]
    rows = page.locator("table.layers tbody tr[data-layer]")
    assert rows.evaluate_all("rows => rows.map((row) => row.dataset.layer)") == names
    cards = page.locator("details.layer")
    assert cards.evaluate_all("cards => cards.map((card) => card.id.slice(6))") == names
    shown = page.locator("[data-k$=params]").all_text_contents()
    assert f"{report['totals']['params']:,}" in shown


def test_wires_of_a_stage(opened, report):
    page = opened()
    figures = page.locator("figure.wiring").all()
    assert len(figures) == len(report["wirings"])
    for figure, wiring in zip(figures, report["wirings"], strict=True):
        for k, C in enumerate(wiring["channels"][1:]):
            assert figure.locator(f"[data-stage='{k + 1}'] path").count() == C


def lit(figure):
    return figure.locator(".wires path.on").count()


def test_the_mouse_lights_the_one_path(opened):
    page = opened()
    figure = page.locator("figure.wiring").first  # L = 2, M = 3
    svg = figure.locator("svg")
    svg.scroll_into_view_if_needed()
    box = svg.bounding_box()
    scale = box["width"] / float(svg.get_attribute("viewBox").split()[2])
    xs = [float(x) for x in svg.get_attribute("data-xs").split()]
    ys = [[float(y) for y in column.split()] for column in svg.get_attribute("data-ys").split("|")]

    def at(column, channel):
        return box["x"] + xs[column] * scale, box["y"] + ys[column][channel] * scale

    page.mouse.move(*at(0, 4))
    told = figure.locator(".told")
    assert "From input channel 4 (partition 1 of Wᵖ)" in told.text_content()
    assert "there is 1 path to each of the 6 output channels" in told.text_content()
    # through the three channels of the partition to all six outputs
    assert lit(figure) == 3 + 6
    page.mouse.click(*at(0, 4))
    page.mouse.move(*at(4, 2))
    # output 2 is secondary output 4: partition 2, input 5, which is primary output 5
    assert told.text_content().endswith(
        "to output channel 2: 1 path, by output 5 of Wᵖ, input 5 of Wᵈ, output 4 of Wᵈ."
    )
    assert lit(figure) == 2
    figure.locator(".clear").click()
    page.mouse.move(5, 5)
    assert lit(figure) == 0
    assert "partitions of the factors: 2, 3" in told.text_content()


def test_the_keyboard_does_all_of_it(opened):
    page = opened()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    figure = page.locator("figure.wiring").nth(1)  # L = 6, M = 2
    figure.locator(".from").focus()
    page.keyboard.type("5")
    page.keyboard.press("Tab")
    page.keyboard.type("7")
    assert "to output channel 7: 1 path" in figure.locator(".told").text_content()
    assert lit(figure) == 2
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert lit(figure) == 0

    card = page.locator("details.layer").first
    card.locator("summary").focus()
    page.keyboard.press("Enter")
    assert card.evaluate("card => card.open")
    page.locator(".stepper .next").focus()
    page.keyboard.press("Enter")
    page.keyboard.press("ArrowRight")
    assert page.locator(".stepper span").text_content() == "case 3 of 6"
    assert page.locator(".case:visible h3").all_text_contents() == ["Xception block: M = 1"]


def test_a_link_opens_the_layer(opened):
    page = opened()
    page.locator("table.layers a", has_text="g2_b1_p2_two1").first.click()
    card = page.locator("#layer-g2_b1_p2_two1")
    assert card.evaluate("card => card.open")
    assert card.locator("math").first.is_visible()


def test_narrow_dark_and_on_paper(opened):
    page = opened(viewport={"width": 390, "height": 800}, color_scheme="dark")
    page.locator(".open-all").click()
    page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    back = "getComputedStyle(document.body).backgroundColor"
    assert page.evaluate(back) == "rgb(13, 17, 23)"
    page.emulate_media(media="print")
    assert page.evaluate(back) == "rgb(255, 255, 255)"
    assert not page.locator("nav").is_visible()
    assert page.locator(".case:visible").count() == 6
