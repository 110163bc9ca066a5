"""`igcnn inspect`: a page of one's own network."""

import html
import json
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from igcnn import build_network
from igcnn.training.checkpoint import Preprocessing, save_checkpoint

SMALL = ("--net", "plain_igc", "--depth", "5", "--L", "2", "--M", "2")


def picture(name="cat.png", size=(40, 30)):
    Image.radial_gradient("L").convert("RGB").resize(size).save(name)
    return name


def test_initial_weights_and_a_digit(igcnn):
    code, out, err = igcnn("inspect", *SMALL, "-o", "page.html")
    assert (code, out) == (0, "page.html\n"), err
    page = Path("page.html").read_text()
    assert "digits, test image 0" in page
    assert "All gradients agree" in page


def test_json_is_what_the_page_shows(igcnn):
    code, out, err = igcnn("inspect", *SMALL, "--dataset", "digits", "--index", "5", "--json")
    assert code == 0, err
    report = json.loads(out)
    assert report["image"]["source"] == "digits, test image 5"
    assert report["image"]["shape"] == [3, 8, 8]
    assert report["failed"] == []
    assert f"{report['totals']['params']:,}" in Path("report.html").read_text()


def test_a_checkpoint_knows_how_images_were_prepared(igcnn):
    assert igcnn("train", *SMALL, "--epochs", "1", "--max-steps", "3", "--out", "run")[0] == 0
    checkpoint = "run/checkpoints/last.h5"
    code, out, err = igcnn("inspect", checkpoint, "--index", "7", "--json")
    assert code == 0, err
    report = json.loads(out)
    assert report["checkpoint"] == checkpoint
    assert report["dead_images"] == 65
    assert report["image"]["class"] == str(report["image"]["label"])
    code, out, _ = igcnn("eval", checkpoint, "--json")
    assert code == 0
    best = report["answers"][0]
    # the same picture as predict sees it
    pixels = report["image"]["pixels"]
    image = Image.new("RGB", (8, 8))
    image.putdata([tuple(p[i][j] for p in pixels) for i in range(8) for j in range(8)])
    image.save("seven.png")
    code, out, err = igcnn("predict", checkpoint, "seven.png", "--top", "1", "--json")
    assert code == 0, err
    (told,) = json.loads(out)[0]["classes"]
    assert told["class"] == best["class"]
    assert told["probability"] == pytest.approx(best["probability"], rel=1e-4)
    code, out, err = igcnn("inspect", checkpoint, "--image", "seven.png", "--json", "--overwrite")
    assert code == 0, err
    assert json.loads(out)["answers"][0]["logit"] == pytest.approx(best["logit"], rel=1e-6)


def test_the_page_shows_the_command_that_makes_it_again(igcnn):
    image = picture("a cat's & dog's.png")
    command = ("inspect", *SMALL, "--image", image, "-o", "my page.html", "--json")
    code, out, err = igcnn(*command)
    assert code == 0, err
    page = Path("my page.html").read_text()
    shown = html.unescape(re.search("<dt>command</dt><dd><code>(.*?)</code>", page)[1])
    program, *arguments = shlex.split(shown)
    assert (program, *arguments) == ("igcnn", "inspect", "--overwrite", *command[1:])
    assert json.loads(out)["command"] == shown
    code, again, err = igcnn(*arguments)
    assert code == 0, err
    assert json.loads(again) == json.loads(out) | {"command": shown}
    assert Path("my page.html").read_text() == page


def test_a_picture_of_any_size(igcnn):
    code, out, err = igcnn("inspect", *SMALL, "--image", picture(), "--json")
    assert code == 0, err
    report = json.loads(out)
    assert report["image"]["shape"] == [3, 32, 32]
    assert report["image"]["source"] == "cat.png"
    assert report["image"]["label"] is None


def test_special_cases_by_their_options(igcnn):
    fusion = ("--L", "4", "--M", "2", "--fusion", "four_branch")
    code, out, err = igcnn("inspect", "--net", "plain_igc", "--depth", "5", *fusion, "--json")
    assert code == 0, err
    assert json.loads(out)["network"]["fusion"] == "four_branch"


def test_refusals_leave_what_was_there(refused):
    Path("page.html").write_text("mine")
    Path("text.png").write_text("no image")
    picture()
    refuse = (("inspect", *SMALL, "-o", "page.html", "--overwrite"), ("inspect", *SMALL))
    assert "not a readable image" in refused(3, *refuse[0], "--image", "text.png")
    assert "cannot be read" in refused(3, *refuse[0], "--image", "nothing.png")
    assert "0 to 359" in refused(2, *refuse[0], "--index", "360")
    assert "did you mean resnet?" in refused(2, "inspect", "--net", "resnett", "-o", "new.html")
    assert "cannot be combined" in refused(2, *refuse[0], "--image", "cat.png", "--index", "3")
    assert "--overwrite" in refused(2, *refuse[1], "-o", "page.html")
    assert "is a folder" in refused(2, *refuse[1], "-o", ".")
    assert "cannot write" in refused(2, *refuse[1], "-o", "no/folder/page.html")
    assert "cannot write" in refused(2, *refuse[1], "-o", "/proc/page.html")
    assert "not an igcnn checkpoint" in refused(6, "inspect", "text.png", "-o", "new.html")
    assert "no checkpoint" in refused(6, "inspect", "nothing.h5", "-o", "new.html")
    assert "leave out --L" in refused(2, "inspect", "nothing.h5", "--L", "4", "-o", "new.html")
    assert Path("page.html").read_text() == "mine"
    assert sorted(path.name for path in Path().iterdir()) == ["cat.png", "page.html", "text.png"]


def checkpoint(path, step, side=8, **settings):
    """Write a checkpoint of a small network."""
    network = build_network("plain_igc", depth=5, L=2, M=2, num_classes=10, seed=step, **settings)
    prepared = Preprocessing("digits", (), (78.0,) * 3, (96.0,) * 3, side=side)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    save_checkpoint(path, network, preprocessing=prepared, progress={"step": step})
    return path


def names_on(page):
    """The networks that a page can show, and which it begins with."""
    text = re.search('id="live-data">(.*?)</script>', Path(page).read_text(), re.S)[1]
    data = json.loads(text)
    return [model["name"] for model in data["models"]], data["first"]


def test_the_checkpoints_of_a_run_in_the_order_of_training(igcnn):
    for name, step in (("best", 20), ("previous", 10), ("last", 30)):
        checkpoint(f"run/checkpoints/{name}.h5", step)
    code, _, err = igcnn("inspect", "run", "-o", "run.html")
    assert code == 0, err
    names = ["previous.h5, step 10", "run, step 20", "last.h5, step 30"]
    assert names_on("run.html") == (names, 1)
    code, _, err = igcnn("inspect", "run/checkpoints/last.h5", "-o", "last.html")
    assert code == 0, err
    assert names_on("last.html") == (["last.h5, step 30"], 0)


def test_several_checkpoints(igcnn, refused):
    first, second = checkpoint("a.h5", 7), checkpoint("b.h5", 3)
    code, _, err = igcnn("inspect", first, second, "-o", "both.html")
    assert code == 0, err
    assert names_on("both.html") == (["b.h5, step 3", "a.h5, step 7"], 1)
    larger = checkpoint("large.h5", 1, side=16)
    assert "for images of 16 pixels a side" in refused(2, "inspect", first, larger)
    assert "no checkpoint" in refused(6, "inspect", first, "nothing.h5")


def test_weights_of_a_run_that_diverged(refused):
    network = build_network("plain", depth=5, L=2, num_classes=10)
    network.parameters()[0].data[1, 0, 0, 0] = np.nan
    prepared = Preprocessing("digits", (), (78.0,) * 3, (96.0,) * 3, side=8)
    save_checkpoint("nan.h5", network, preprocessing=prepared)
    assert "output of g0_conv is not finite" in refused(5, "inspect", "nan.h5")


def test_without_the_extra(refused, monkeypatch):
    monkeypatch.setitem(sys.modules, "latex2mathml.converter", None)
    for name in [name for name in sys.modules if name.startswith("igcnn.inspection.page")]:
        monkeypatch.delitem(sys.modules, name)
    assert 'pip install "igcnn[inspect]"' in refused(2, "inspect", *SMALL)
    assert not Path("report.html").exists()
