"""`igcnn data`, `predict`, `convert`, and training on encoded images, from the command line."""

import hashlib
import http.server
import json
import threading
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from igcnn import load_checkpoint
from igcnn.datasets import cifar
from tests.datasets.pictures import make_tree
from tests.datasets.test_svhn import COUNTS, contents, mat_bytes


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@pytest.fixture
def cifar_source(tmp_path, monkeypatch):
    """A small CIFAR-10 archive on a local server, named by IGCNN_DATA_SOURCES."""
    import io
    import tarfile

    monkeypatch.setattr(cifar, "TRAIN_IMAGES", 100)
    monkeypatch.setattr(cifar, "TEST_IMAGES", 20)
    rng = np.random.default_rng(0)
    served = tmp_path / "served"
    served.mkdir()
    path = served / "cifar-10-binary.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name in (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"):
            records = rng.integers(0, 256, (20, 3073), dtype=np.uint8)
            records[:, 0] %= 10
            info = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            info.size = records.nbytes
            archive.addfile(info, io.BytesIO(records.tobytes()))
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(Quiet, directory=str(served))
    )
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    data = path.read_bytes()
    import igcnn.datasets.sources as sources

    own = sources.RemoteFile(
        path.name,
        len(data),
        hashlib.sha256(data).hexdigest(),
        (f"http://127.0.0.1:{server.server_port}/{path.name}",),
    )
    monkeypatch.setattr(
        sources, "load_sources", lambda *_: {"cifar10": sources.Source("cifar10", "small", (own,))}
    )
    monkeypatch.setenv("IGCNN_OFFLINE", "0")
    yield path
    server.shutdown()
    thread.join()
    server.server_close()


def test_training_fetches_what_is_missing(igcnn, cifar_source):
    line = ("train", "--dataset", "cifar10", "--net", "plain", "--depth", "5", "--max-steps", "1")
    code, out, err = igcnn(*line, "--out", "run", "--progress", "none")
    assert code == 0, err
    assert "cifar10 not found; downloading" in err
    assert "100 training" in out
    code, out, _ = igcnn("data", "where", "cifar10")
    folder = Path(out.strip())
    assert [path.name for path in folder.iterdir()] == [cifar_source.name]
    code, out, err = igcnn(*line, "--out", "again", "--progress", "none")
    assert code == 0, err
    assert "downloading" not in err
    code, out, _ = igcnn("data", "verify", "cifar10")
    assert code == 0
    assert "ok" in out


def test_fetch_verify_and_damage(igcnn, refused, cifar_source):
    code, out, err = igcnn("data", "fetch", "cifar10", "--data-dir", "mine")
    assert code == 0, err
    path = Path("mine/cifar10") / cifar_source.name
    assert out.strip() == str(path)
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    code, out, err = igcnn("data", "verify", "cifar10", "--data-dir", "mine")
    assert code == 3
    assert "sha256" in out
    assert "igcnn data fetch cifar10" in err


def test_unpacked_files_are_found_by_verify_pack_and_eval(igcnn, refused, cifar_source, tmp_path):
    import tarfile

    with tarfile.open(cifar_source) as archive:
        archive.extractall(tmp_path / "mine", filter="data")
    code, out, err = igcnn("data", "verify", "cifar10", "--data-dir", tmp_path / "mine")
    assert code == 0, err
    assert "100 training and 20 test images in unpacked files" in out
    assert "missing" in refused(3, "data", "verify", "cifar10", "--data-dir", tmp_path / "empty")
    packed = tmp_path / "packed"
    code, out, err = igcnn(
        "data", "pack", "cifar10", "--data-dir", tmp_path / "mine", "-o", packed
    )
    assert code == 0, err
    assert len(out.splitlines()) == len(list(packed.iterdir())) == 6
    assert "exists" in refused(2, "data", "pack", "cifar10", "--data-dir", packed, "-o", packed)
    line = "train --dataset cifar10 --net plain --depth 5 --epochs 1 --out run --progress none"
    code, _, err = igcnn(*line.split(), "--data-dir", packed)
    assert code == 0, err
    # eval knows the run, its checkpoints and its --data-dir
    results = [igcnn("eval", path, "--json") for path in ("run", "run/checkpoints/best.h5")]
    assert results[0] == results[1]
    code, out, err = results[0]
    assert code == 0
    assert json.loads(out)["images"] == 20
    assert "downloading" not in err
    assert "was trained on the classes of cifar10" in refused(
        2, "eval", "run", "--dataset", "digits"
    )
    assert "digits does not read files" in refused(
        2, "eval", "run", "--dataset", "digits", "--data-dir", "x"
    )


def test_data_of_ones_own_in_the_official_format(igcnn, refused, tmp_path):
    folder = tmp_path / "mine" / "svhn"
    folder.mkdir(parents=True)
    for part in COUNTS:
        (folder / f"{part}_32x32.mat").write_bytes(mat_bytes(contents(part)))
    code, out, err = igcnn("data", "verify", "svhn", "--data-dir", "mine")
    assert (code, err) == (0, "")
    assert out.endswith(
        "svhn: not the official files, but readable: 307 training and 5 test images\n"
    )
    line = "train --dataset svhn --net plain --depth 5 --max-steps 1 --out run --progress none"
    code, _, err = igcnn(*line.split(), "--data-dir", "mine")
    assert code == 0, err
    assert "igcnn: mine/svhn does not hold the official svhn: 307 training and 5 test" in err
    victim = folder / "test_32x32.mat"
    victim.write_bytes(victim.read_bytes()[:-1])
    assert "test_32x32.mat" in refused(3, "data", "verify", "svhn", "--data-dir", "mine")
    victim.unlink()
    assert "test_32x32.mat missing" in refused(3, "data", "verify", "svhn", "--data-dir", "mine")


def test_offline_says_which_files_go_where(refused, igcnn):
    folder = Path(igcnn("data", "where", "svhn")[1].strip())
    line = refused(3, "data", "fetch", "svhn")
    for words in ("train_32x32.mat (182,040,794 bytes)", str(folder), "IGCNN_OFFLINE"):
        assert words in line
    refused(3, "data", "fetch", "imagenet")
    assert "cifar10" in refused(2, "data", "fetch", "cifar11")


def test_list(igcnn):
    code, out, _ = igcnn("data", "list")
    assert code == 0
    for name in ("digits", "cifar10", "cifar100", "svhn", "imagenet", "folder"):
        assert name in out


@pytest.fixture
def tree(tmp_path):
    return make_tree(tmp_path / "pictures")


def test_own_images_from_training_to_prediction(igcnn, refused, tree):
    code, out, err = igcnn(
        "train", "--net", "plain_igc", "--depth", "5", "--L", "2", "--M", "2", "--dataset",
        "folder", "--data-dir", tree, "--image-size", "16", "--epochs", "2", "--batch-size", "5",
        "--workers", "0", "--progress", "none", "--out", "run",
    )  # fmt: skip
    assert code == 0, err
    assert "15 training and 15 test images of 16×16 in 3 classes" in out
    best = "run/checkpoints/last.h5"
    prepared = load_checkpoint(best).preprocessing
    assert (prepared.side, prepared.view) == (16, "square")
    images = sorted((tree / "val").rglob("*.JPEG"))[:4]
    code, out, err = igcnn("predict", best, *images, "--json", "--top", "2")
    assert code == 0, err
    rows = json.loads(out)
    assert [row["image"] for row in rows] == list(map(str, images))
    for row in rows:
        first, second = (c["probability"] for c in row["classes"])
        assert 1 >= first >= second >= 0
    code, out, err = igcnn("eval", best, "--data-dir", tree, "--json")
    assert code == 0, err
    whole = json.loads(out)
    confusion = np.array(whole["confusion"])
    assert confusion.sum() == whole["images"] == 15
    assert 100 * confusion.trace() / 15 == pytest.approx(whole["top1"])
    said = {row["classes"][0]["class"] for row in rows}
    assert said <= {"n000", "n001", "n002"}
    code, out, err = igcnn("eval", best, "--data-dir", tree, "--per-class", "--confusion")
    assert code == 0, err
    assert out.count("n00") >= 3
    Path("no.jpg").write_text("no image")
    code, out, err = igcnn("predict", best, images[0], "no.jpg", images[1])
    assert code == 3
    assert "no.jpg is not a readable image (1 of 3 skipped)" in err
    assert [line.split()[0] for line in out.splitlines()] == [str(images[0]), str(images[1])]
    folder = Path(images[0]).parent
    code, out, err = igcnn("predict", best, folder)
    assert code == 0, err
    assert len(out.splitlines()) == len(list(folder.iterdir()))
    assert igcnn("predict", best, f"{folder}/*")[1] == out
    assert "absent.jpg" in refused(3, "predict", best, "absent.jpg")


def test_a_tree_like_imagenet_trains_and_resumes(igcnn, tree):
    arguments = (
        "train", "--net", "resnet_igc_imgnet_d18", "--L", "4", "--M", "2", "--dataset", "imagenet",
        "--data-dir", tree, "--epochs", "1", "--batch-size", "4", "--lr", "0.01",
        "--log-interval", "1", "--progress", "none",
    )  # fmt: skip
    code, _, err = igcnn(*arguments, "--workers", "1", "--out", "whole")
    assert code == 0, err
    code, _, err = igcnn(*arguments, "--workers", "0", "--out", "part", "--max-steps", "2")
    assert code == 0, err
    code, _, err = igcnn("train", "--resume", "part", "--workers", "0", "--set", "max_steps=4")
    assert code == 0, err
    states = [load_checkpoint(f"{run}/checkpoints/last.h5").state for run in ("whole", "part")]
    for name, array in states[0].items():
        np.testing.assert_array_equal(array, states[1][name])


def test_packing_and_broken_images(igcnn, refused, tree):
    victim = tree / "train" / "n001" / "train_1.JPEG"
    victim.write_bytes(b"\xff\xd8 no more")
    pack = ("data", "pack", "imagenet", "--data-dir", tree, "--workers", "0")
    assert "train_1.JPEG" in refused(3, *pack)
    assert not (tree / "imagenet.h5").exists()
    code, out, err = igcnn(*pack, "--on-bad-image", "skip")
    assert code == 0, err
    assert "1 unreadable images skipped" in err
    assert str(tree / "imagenet.h5") in out
    refused(2, *pack)


def test_the_authors_line_for_imagenet_warns(igcnn, tree):
    code, out, err = igcnn(
        "train", "--network=resnet_igc_imgnet_d18", "--primary-partition=2", "--batch-size=4",
        "--dataset=imagenet", "--data-dir", tree, "--max-steps", "1", "--workers", "0",
        "--progress", "none", "--out", "run",
    )  # fmt: skip
    assert code == 0, err
    assert "the published network is --L 100 --M 2" in err
    assert "L 2, M 8" in out


def test_converting(igcnn, refused, tmp_path):
    from igcnn import build_network
    from tests.exchange.test_mxnet import released, symbol_of, write

    network = build_network("resnet_igc_imgnet_d18", L=6, M=2, num_classes=7)
    params, symbol = write(tmp_path, released(network)[0], symbol_of(network))
    code, _, err = igcnn("convert", "mxnet", params, symbol, "-o", "net.h5")
    assert code == 0, err
    Image.new("RGB", (300, 200), (9, 99, 200)).save("x.png")
    code, out, err = igcnn("predict", "net.h5", "x.png")
    assert code == 0, err
    assert out.count("%") == 5
    refused(2, "convert", "mxnet", params, symbol, "-o", "net.h5")
    refused(6, "convert", "mxnet", symbol, params, "-o", "other.h5")
    assert not Path("other.h5").exists()
