import json
import re

import pytest

from igcnn.errors import IgcnnError
from igcnn.networks import NETWORKS
from igcnn.version import __version__


def test_help_and_version(igcnn):
    for arguments in ((), ("--help",), ("-h",)):
        code, out, _ = igcnn(*arguments)
        assert code == 0
        assert "igcnn train --net resnet_igc" in out
    assert igcnn("--version")[:2] == (0, f"igcnn, version {__version__}\n")


def test_help_names_every_network(igcnn):
    for command in ("train", "summary"):
        _, out, _ = igcnn(command, "--help")
        assert set(NETWORKS) <= set(re.findall(r"\w+", out))


@pytest.mark.parametrize(
    "arguments",
    [("nonsense",), ("train", "--depht", "8"), ("eval",), ("summary", "--depth", "x")],
)
def test_usage(refused, arguments):
    refused(2, *arguments)


# docs/runs.md, "How a run ends"; 1 for all others
CODES = {
    "ShapeError": 2,
    "DtypeError": 2,
    "ConfigError": 2,
    "DataError": 3,
    "DeviceError": 4,
    "DivergedError": 5,
    "CheckpointError": 6,
    "PreemptedError": 75,
}


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (MemoryError(), 4),
        (ZeroDivisionError("x"), 1),
        (OSError(28, "No space left on device"), 1),
        *((kind("a\nb"), CODES.get(kind.__name__, 1)) for kind in IgcnnError.__subclasses__()),
    ],
    ids=repr,
)
def test_errors_end_in_one_line_and_their_code(refused, monkeypatch, error, code):
    def fail(*arguments, **options):
        raise error

    monkeypatch.setattr("igcnn.networks.build_network", fail)
    line = refused(code, "summary")
    if code == 4:
        assert "batch-size" in line or "a b" in line


def test_debug_shows_the_traceback(igcnn, monkeypatch):
    monkeypatch.setenv("IGCNN_DEBUG", "1")
    code, _, err = igcnn("summary", "--net", "resnt")
    assert code == 2
    assert "Traceback" in err
    assert err.splitlines()[-1].startswith("igcnn: error: ")
    for off in ("0", ""):
        monkeypatch.setenv("IGCNN_DEBUG", off)
        assert "Traceback" not in igcnn("summary", "--net", "resnt")[2]


def test_interrupt(igcnn, monkeypatch):
    def interrupt(*arguments, **keywords):
        raise KeyboardInterrupt

    monkeypatch.setattr("igcnn.networks.build_network", interrupt)
    code, _, err = igcnn("summary")
    assert code == 130
    assert "Traceback" not in err


def test_a_closed_pipe_is_no_error(start):
    process = start("summary", "--depth", "98")
    process.stdout.close()
    assert process.wait(60) == 141
    assert process.stderr.read() == ""


def test_summary_as_json(igcnn):
    arguments = ("--net", "plain_igc", "--depth", "8", "--L", "4", "--M", "2", "--classes", "7")
    code, out, _ = igcnn("summary", *arguments, "--image-size", "16", "--json")
    assert code == 0
    values = json.loads(out)
    expected = {"params", "params_conv", "params_bn", "params_fc", "macs_conv", "macs", "layers"}
    assert expected <= set(values)
    assert values["layers"][0]["output"] == [8, 16, 16]
    assert values["layers"][-1]["output"] == [7]


def test_summary_tells_whether_channels_meet(igcnn):
    code, out, _ = igcnn("summary", "--net", "plain_igc", "--depth", "5", "--L", "9", "--M", "1")
    assert code == 0
    words = " ".join(out[out.index("units") :].split())
    assert words.startswith("units g1_b1: fan-ins 9, 9 (balanced); 1 path from every input")


def test_summary_as_text(igcnn):
    code, out, _ = igcnn("summary", "--net", "resnet", "--depth", "8")
    assert code == 0
    assert "parameters" in out
    assert "3×32×32" in out


def test_summary_of_a_run(igcnn, refused):
    line = ("train", "--net", "Plain_IGC", "--depth", "8", "--L", "2", "--M", "2")
    assert igcnn(*line, "--max-steps", "1", "--progress", "none", "--out", "run")[0] == 0
    for path in ("run", "run/checkpoints/last.h5"):
        code, out, _ = igcnn("summary", path, "--json")
        assert code == 0
        values = json.loads(out)
        assert values["network"]["net"] == "plain_igc"
        assert values["image_shape"] == [3, 8, 8]  # those of its training
    assert "leave out --depth" in refused(2, "summary", "run", "--depth", "8")
    assert "there is no checkpoint" in refused(6, "summary", "absent")


def test_summary_of_what_cannot_be_built(refused):
    assert "did you mean resnet_igc" in refused(2, "summary", "--net", "resnet_ig")
    refused(2, "summary", "--image-size", "0")
    assert "depth" in refused(2, "summary", "--depth", "9")
