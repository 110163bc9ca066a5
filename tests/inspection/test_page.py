"""The page: one file, every number of it in the report, nothing from elsewhere."""

import json
import re
from html.parser import HTMLParser

import pytest


class Reader(HTMLParser):
    """Collects numbers with the paths they are said to have, addresses and texts."""

    VOID = ("meta", "link", "img", "br", "input")

    def __init__(self):
        super().__init__()
        self.open = []
        self.numbers = []
        self.addresses = []
        self.ids = []

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.ids += [attributes["id"]] if "id" in attributes else []
        self.addresses += [attributes[key] for key in ("href", "src") if key in attributes]
        if "data-k" in attributes:
            path = attributes["data-k"]
            if path.startswith("."):
                path = next(at for _, at in reversed(self.open) if at) + path
            self.numbers.append([path, attributes["data-f"], ""])
        if tag not in self.VOID:
            self.open.append((tag, attributes.get("data-at")))

    def handle_startendtag(self, tag, attributes):
        if tag in ("image", "use"):
            self.addresses.append(dict(attributes)["href"])

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        if self.open and self.open[-1][0] == "span" and self.numbers:
            self.numbers[-1][2] = self.numbers[-1][2] or data


def read(page):
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert reader.open == []
    return reader


def value_at(report, path):
    for key in path.split("."):
        report = report[int(key) if isinstance(report, list) else key]
    return report


SETTINGS = [
    dict(net="resnet_igc", depth=8, L=4, M=2),
    dict(net="plain", depth=5, L=4, M=1),
    dict(net="plain_igc", depth=5, L=160, M=2),  # wires in bundles
    dict(net="resnet_igc_imgnet_d18", L=2, M=2),
]


@pytest.fixture(scope="module", params=SETTINGS, ids=lambda s: s["net"])
def made(request, rendered):
    report, page = rendered(**request.param)
    return json.loads(json.dumps(report)), page


def test_every_number_is_the_reports(made):
    report, page = made
    numbers = read(page).numbers
    assert len(numbers) > 20 * len(report["layers"])
    for path, form, text in numbers:
        value = value_at(report, path)
        if isinstance(value, list):
            expected = ("×" if form == "×" else ", ").join(map(str, value))
        else:
            expected = "–" if value is None else format(value, form).replace("-", "−")
        assert text == expected, path


def test_nothing_comes_from_elsewhere(made):
    _, page = made
    reader = read(page)
    for address in reader.addresses:
        assert address.startswith(("#", "data:")), address
        if address.startswith("#"):
            assert address[1:] in reader.ids
    assert len(set(reader.ids)) == len(reader.ids)
    assert "default-src 'none'" in page
    assert not re.search(r"url\(|@import|fetch\(|XMLHttpRequest", page)
    assert len(page.encode()) < 3_000_000


def test_every_layer_is_there(made):
    report, page = made
    ids = read(page).ids
    for layer in report["layers"]:
        assert f"layer-{layer['name']}" in ids
        assert f'data-layer="{layer["name"]}"' in page


def test_wires(made):
    report, page = made
    diagrams = re.findall(r'<svg class="wiring".*?</svg>', page, re.S)
    assert len(diagrams) == len(report["wirings"])
    for diagram, wiring in zip(diagrams, report["wirings"], strict=True):
        for k, C in enumerate(wiring["channels"][1:]):
            group = re.search(rf'<g class="wires[^"]*" data-stage="{k + 1}">(.*?)</g>', diagram)
            if "bundled" in group[0]:
                told = [int(n) for n in re.findall(r"<title>(\d+) wires", group[1])]
                assert sum(told) == C
            else:
                assert group[1].count("<path") == C


def test_names_cannot_become_markup(made):
    _, page = made
    assert "<b>bird" not in page
    assert "&lt;b&gt;bird" in page or r"\u003cb>bird" in page  # in text, or in data


def test_both_sources_of_every_operation(made):
    report, page = made
    assert "def convolution_forward(" in re.sub("<[^>]*>", "", page)
    for part in page.split('<article class="operation"')[1:]:
        text = re.sub("<[^>]*>", "", part.split("</article>")[0])
        assert "__global__" in text
        assert "def " in text
        assert part.count("<math") >= 2
    types = {layer["type"] for layer in report["layers"]}
    assert ('id="op-interleaved_group_convolution"' in page) == (
        "InterleavedGroupConvolution" in types
    )
