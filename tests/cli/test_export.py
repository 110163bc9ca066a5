"""`igcnn export` and `igcnn convert torch|safetensors`."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from igcnn import build_network, load_checkpoint, save_checkpoint
from tests.cli.test_plugins import MODULE, POINTS
from tests.exchange.networks import PREPROCESSING, equal_bits, sample

pytest.importorskip("onnx")
pytest.importorskip("safetensors")

RESNET = ("--net", "resnet", "--depth", "8", "--L", "4", "--M", "2")


@pytest.fixture
def network():
    network = sample("resnet")
    save_checkpoint("best.h5", network, preprocessing=PREPROCESSING)
    return network


def files():
    return {path.name: path.read_bytes() for path in Path().iterdir() if path.is_file()}


def succeeded(result):
    code, out, err = result
    assert code == 0, err
    return out


def test_onnx_is_checked_before_it_is_written(igcnn, network):
    pytest.importorskip("onnxruntime")
    out = succeeded(igcnn("export", "best.h5", "-o", "net.onnx"))
    assert out.startswith("net.onnx: ONNX opset 17, ONNX Runtime agrees within ")
    assert float(out.split()[-1]) < 1e-5
    folded = Path("net.onnx").stat().st_size
    succeeded(igcnn("export", "best.h5", "-o", "net.onnx", "--no-fold-bn", "--overwrite"))
    assert Path("net.onnx").stat().st_size > folded


def test_without_onnxruntime_it_says_that_nothing_was_compared(igcnn, network, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    code, out, err = igcnn("export", "best.h5", "-o", "net.onnx")
    assert (code, out) == (0, "net.onnx: ONNX opset 17\n")
    assert "were not compared with igcnn's; pip install onnxruntime" in err


def test_a_network_that_diverged_is_not_exported(refused, network):
    pytest.importorskip("onnxruntime")
    network.parameters()[0].data[...] = float("nan")
    save_checkpoint("best.h5", network, preprocessing=PREPROCESSING)
    before = files()
    assert "not finite" in refused(5, "export", "best.h5", "-o", "net.onnx")
    assert files() == before


def test_safetensors_and_back_give_the_same_checkpoint(igcnn, network):
    succeeded(igcnn("export", "best.h5", "-o", "net.safetensors"))
    out = succeeded(igcnn("convert", "safetensors", "net.safetensors", "-o", "back.h5"))
    assert out == "back.h5: net resnet  depth 8  L 4  M 2  num_classes 10\n"
    assert Path("back.h5").read_bytes() == Path("best.h5").read_bytes()


def test_pytorch_and_back_give_the_same_checkpoint(igcnn, network):
    pytest.importorskip("torch")
    out = succeeded(igcnn("export", "best.h5", "-o", "net.pt"))
    assert out == "net.pt net.py: PyTorch\n"
    succeeded(igcnn("convert", "torch", "net.pt", "-o", "back.h5", "--like", "best.h5"))
    assert Path("back.h5").read_bytes() == Path("best.h5").read_bytes()
    succeeded(igcnn("convert", "torch", "net.pt", "-o", "net.h5", *RESNET))
    saved = load_checkpoint("net.h5")
    assert equal_bits(saved.build().state_dict(), network.state_dict())
    assert saved.preprocessing is None


def test_a_registered_network_of_ones_own(igcnn, install):
    install("stripe-nets", POINTS, stripe_nets=MODULE, stripe_broken="import nowhere")
    own = build_network("two_convs", width=6, num_classes=2)
    save_checkpoint("best.h5", own)
    for ending in ("onnx", "safetensors"):
        succeeded(igcnn("export", "best.h5", "-o", f"net.{ending}"))
    convert = ("convert", "safetensors", "net.safetensors")
    setting = ("--net", "two_convs", "--set", "width=6", "--classes", "2")
    for number, options in enumerate(((), ("--like", "best.h5"), setting)):
        succeeded(igcnn(*convert, "-o", f"{number}.h5", *options))
        saved = load_checkpoint(f"{number}.h5")
        assert saved.network["width"] == 6
        assert equal_bits(saved.build().state_dict(), own.state_dict())


def test_a_run_is_taken_where_a_checkpoint_is(igcnn, network):
    folder = Path("run/checkpoints")
    folder.mkdir(parents=True)
    Path("best.h5").rename(folder / "best.h5")
    succeeded(igcnn("export", "run", "-o", "net.safetensors"))


@pytest.mark.parametrize("existing", ["net.pt", "net.py"])
def test_nothing_is_overwritten(igcnn, refused, network, existing):
    pytest.importorskip("torch")
    Path(existing).write_text("mine")
    before = files()
    line = refused(2, "export", "best.h5", "-o", "net.pt")
    assert f"{existing} exists; choose another -o or pass --overwrite" in line
    assert files() == before
    succeeded(igcnn("export", "best.h5", "-o", "net.pt", "--overwrite"))
    assert Path(existing).read_bytes() != b"mine"


def test_export_refuses_what_it_cannot_do(refused, network):
    assert ".onnx, .safetensors, .pt" in refused(2, "export", "best.h5", "-o", "net.tflite")
    assert "is not a folder" in refused(2, "export", "best.h5", "-o", "no/net.onnx")
    assert "no checkpoint" in refused(6, "export", "absent.h5", "-o", "net.onnx")


@pytest.mark.parametrize(
    ("ending", "module", "advice"),
    [
        ("onnx", "onnx", 'pip install "igcnn[export]"'),
        ("safetensors", "safetensors", 'pip install "igcnn[export]"'),
        ("pt", "torch", 'pip install "torch"'),
    ],
)
def test_a_missing_package_is_named(refused, network, monkeypatch, ending, module, advice):
    for name in [m for m in sys.modules if m.startswith("igcnn.exchange.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    assert advice in refused(2, "export", "best.h5", "-o", f"net.{ending}")
    if module != "onnx":
        Path("net").touch()
        command = {"pt": "torch"}.get(ending, ending)
        assert "pip install" in refused(2, "convert", command, "net", "-o", "x.h5")


def test_convert_refuses_what_does_not_fit(igcnn, refused, network):
    succeeded(igcnn("export", "best.h5", "-o", "net.safetensors"))
    before = files()
    convert = ("convert", "safetensors", "net.safetensors")
    assert "best.h5 exists" in refused(2, *convert, "-o", "best.h5")
    line = refused(6, *convert, "-o", "x.h5", "--net", "resnet", "--depth", "14", "--L", "8")
    assert "net.safetensors: the state does not match the network: missing: g1_b2" in line
    assert "no file absent" in refused(6, "convert", "safetensors", "absent", "-o", "x.h5")
    line = refused(2, *convert, "-o", "x.h5", "--like", "best.h5", *RESNET)
    assert "leave out --net, --depth, --L, --M" in line
    assert "not a safetensors file" in refused(
        6, "convert", "safetensors", "best.h5", "-o", "x.h5"
    )
    assert files() == before


def test_a_file_that_does_not_say_what_it_holds_needs_the_network(igcnn, refused, network):
    from safetensors.numpy import save_file

    save_file(network.state_dict(), "plain.safetensors")
    convert = ("convert", "safetensors", "plain.safetensors", "-o", "x.h5")
    assert "pass --like or --net" in refused(2, *convert)
    succeeded(igcnn(*convert, *RESNET))


@pytest.mark.parametrize(("package", "ending"), [("onnxruntime", "onnx"), ("torch", "pt")])
def test_python_in_the_page_does_what_predict_does(
    igcnn, network, monkeypatch, capfd, package, ending
):
    pytest.importorskip(package)
    page = (Path(__file__).parents[2] / "docs" / "export.md").read_text(encoding="utf-8")
    (block,) = (b for b in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if package in b)
    pixels = np.random.default_rng(3).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save("digit.png")
    succeeded(igcnn("export", "best.h5", "-o", f"net.{ending}"))
    expected = json.loads(succeeded(igcnn("predict", "best.h5", "digit.png", "--json")))
    monkeypatch.syspath_prepend(".")
    try:
        exec(block, {})
    finally:
        sys.modules.pop("net", None)
    assert capfd.readouterr().out == expected[0]["classes"][0]["class"] + "\n"
