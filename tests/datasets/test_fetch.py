"""Downloads from a local server that behaves as badly as servers do."""

import hashlib
import http.server
import threading
import time

import pytest

from igcnn.datasets import fetch as fetching
from igcnn.datasets.fetch import fetch, verify
from igcnn.datasets.sources import RemoteFile, Source, load_sources
from igcnn.errors import ConfigError, DataError

CONTENT = bytes(i * 7 % 251 for i in range(300_000))
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers by the first part of the path."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        pass

    def do_GET(self):
        self.server.asked.append((self.path, self.headers.get("Range")))
        getattr(self, "answer_" + self.path.split("/")[1])()

    def head(self, status, length, **headers):
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        self.send_header("Connection", "close")
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.close_connection = True

    def start(self):
        value = self.headers.get("Range")
        return int(value.removeprefix("bytes=").removesuffix("-")) if value else 0

    def rest(self, first):
        if first:
            size = len(CONTENT)
            self.head(206, size - first, Content_Range=f"bytes {first}-{size - 1}/{size}")
        else:
            self.head(200, len(CONTENT))

    def answer_good(self):
        first = self.start()
        self.rest(first)
        self.wfile.write(CONTENT[first:])

    def answer_whole(self):
        """Knows no Range."""
        self.head(200, len(CONTENT))
        self.wfile.write(CONTENT)

    def answer_drops(self):
        """Gives 100,000 bytes a time."""
        first = self.start()
        self.rest(first)
        self.wfile.write(CONTENT[first : first + 100_000])

    def answer_stuck(self):
        """Gives 50,000 bytes and never more."""
        first = self.start()
        self.rest(first)
        self.wfile.write(CONTENT[: 0 if first else 50_000])
        self.wfile.flush()
        time.sleep(3 * fetching.TIMEOUT)

    def answer_stalls(self):
        """Gives 50,000 bytes a time, and keeps the connection open."""
        first = self.start()
        self.rest(first)
        self.wfile.write(CONTENT[first : first + 50_000])
        self.wfile.flush()
        time.sleep(3 * fetching.TIMEOUT)

    def answer_crawls(self):
        self.rest(self.start())
        for i in range(200):
            self.wfile.write(CONTENT[i * 10 : i * 10 + 10])
            self.wfile.flush()
            time.sleep(0.05)

    def answer_truncates(self):
        """Gives half of the file and says that this is all."""
        self.head(200, len(CONTENT) // 2)
        self.wfile.write(CONTENT[: len(CONTENT) // 2])

    def answer_silent(self):
        """Gives half of the file and no length."""
        self.send_response(200)
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        self.wfile.write(CONTENT[: len(CONTENT) // 2])

    def answer_long(self):
        self.send_response(200)
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        self.wfile.write(CONTENT + b"more")

    def answer_range(self):
        """Gives another range than asked."""
        first = self.start()
        size = len(CONTENT)
        self.head(206, size - first, Content_Range=f"bytes 0-{size - 1}/{size}")
        self.wfile.write(CONTENT[first:])

    def answer_other(self):
        self.head(200, len(CONTENT))
        self.wfile.write(CONTENT[::-1])

    def answer_html(self):
        page = b"<!DOCTYPE html><p>please log in".ljust(len(CONTENT))
        self.head(200, len(page), Content_Type="application/octet-stream")
        self.wfile.write(page)

    def answer_page(self):
        self.head(200, 9, Content_Type="text/html; charset=utf-8")
        self.wfile.write(b"<p>sorry!")

    def answer_missing(self):
        self.head(404, 0)

    def answer_broken(self):
        self.head(503, 0)

    def answer_closes(self):
        self.close_connection = True


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(fetching, "TIMEOUT", 0.4)
    monkeypatch.setattr(fetching, "SLOW_SECONDS", 0.5)
    own = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    own.asked = []
    own.daemon_threads = True
    thread = threading.Thread(target=own.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield own
    own.shutdown()
    thread.join()
    own.server_close()


def source(server, *answers):
    urls = tuple(f"http://127.0.0.1:{server.server_port}/{answer}/f.bin" for answer in answers)
    return Source("toy", "a toy", (RemoteFile("f.bin", len(CONTENT), DIGEST, urls),))


def get(server, folder, *answers):
    fetch(source(server, *answers), folder, environment={})
    assert (folder / "f.bin").read_bytes() == CONTENT
    assert [path.name for path in folder.iterdir()] == ["f.bin"]


@pytest.mark.parametrize("answer", ["good", "whole", "drops", "stalls"])
def test_a_source_that_gives_the_file(server, tmp_path, answer):
    get(server, tmp_path, answer)


def test_a_download_goes_on_where_it_was(server, tmp_path):
    (tmp_path / "f.bin.part").write_bytes(CONTENT[:123_456])
    get(server, tmp_path, "good")
    assert server.asked == [("/good/f.bin", "bytes=123456-")]


def test_a_source_without_ranges_begins_again(server, tmp_path):
    (tmp_path / "f.bin.part").write_bytes(b"x" * 1000)
    get(server, tmp_path, "whole")


def test_a_part_that_is_not_of_the_file_is_thrown_away(server, tmp_path):
    (tmp_path / "f.bin.part").write_bytes(b"x" * 1000)
    with pytest.raises(DataError, match="checksum"):
        fetch(source(server, "good"), tmp_path, environment={})
    assert not list(tmp_path.iterdir())
    get(server, tmp_path, "good")


def test_a_whole_file_is_not_fetched_again(server, tmp_path):
    get(server, tmp_path, "good")
    get(server, tmp_path, "good")
    assert len(server.asked) == 1


BAD = {
    "truncates": "says the file has 150000 bytes",
    "silent": "ends after 150,000",
    "long": "more than the 300,000 bytes",
    "other": "checksum",
    "html": "web page",
    "page": "web page",
    "missing": "404",
    "broken": "503",
    "closes": "closed connection|Remote end|RemoteDisconnected",
    "stuck": "breaks off|timed out",
    "range": "where 'bytes",
}


@pytest.mark.parametrize("answer", BAD)
def test_a_bad_source_is_an_error_that_says_what_to_do(server, tmp_path, answer):
    if answer == "range":
        (tmp_path / "f.bin.part").write_bytes(CONTENT[:1000])
    with pytest.raises(DataError, match=BAD[answer]) as error:
        fetch(source(server, answer), tmp_path, environment={})
    assert f"f.bin (300,000 bytes) into {tmp_path}" in str(error.value)
    assert not (tmp_path / "f.bin").exists()


@pytest.mark.parametrize("answer", [*BAD, "crawls"])
def test_after_a_bad_source_comes_the_next(server, tmp_path, answer):
    get(server, tmp_path, answer, "good")


def test_progress_is_reported(server, tmp_path):
    seen = []
    fetch(source(server, "good"), tmp_path, lambda *row: seen.append(row), environment={})
    assert seen[-1] == ("f.bin", len(CONTENT), len(CONTENT))


def test_two_processes_do_not_fetch_one_file(server, tmp_path):
    import fcntl
    import os

    handle = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    with pytest.raises(DataError, match="another process is downloading"):
        fetch(source(server, "good"), tmp_path, environment={})
    os.close(handle)
    get(server, tmp_path, "good")


def test_offline_by_wish_asks_nobody(server, tmp_path):
    with pytest.raises(DataError, match=r"IGCNN_OFFLINE.*f.bin \(300,000 bytes\)"):
        fetch(source(server, "good"), tmp_path, environment={"IGCNN_OFFLINE": "1"})
    assert not server.asked


def test_without_a_network_the_end_comes_soon(tmp_path):
    urls = ("http://127.0.0.1:9/f.bin", "http://127.0.0.1:9/g.bin")
    file = RemoteFile("f.bin", len(CONTENT), DIGEST, urls)
    with pytest.raises(DataError, match="refused"):
        fetch(Source("toy", "", (file,)), tmp_path, environment={})


def test_verify(server, tmp_path):
    own = source(server, "good")
    assert verify(own, tmp_path) == {"f.bin": "missing"}
    fetch(own, tmp_path, environment={})
    assert verify(own, tmp_path) == {"f.bin": "ok"}
    path = tmp_path / "f.bin"
    path.write_bytes(CONTENT[:-1])
    assert "299,999 bytes instead of 300,000" in verify(own, tmp_path)["f.bin"]
    path.write_bytes(CONTENT[:-1] + b"!")
    assert "sha256" in verify(own, tmp_path)["f.bin"]


def test_known_sources():
    sources = load_sources({})
    assert set(sources) == {"cifar10", "cifar100", "svhn", "imagenet"}
    assert sum(file.size for file in sources["svhn"].files) == 1_575_594_780


def test_own_sources_come_first(tmp_path):
    digest = load_sources({})["cifar10"].files[0].sha256
    path = tmp_path / "mine.toml"
    path.write_text(
        '[cifar10]\n[[cifar10.files]]\nname = "cifar-10-binary.tar.gz"\nsize = 1\n'
        f'sha256 = "{digest}"\nurls = ["http://mirror.example/c.tar.gz"]\n'
        f'[toy]\n[[toy.files]]\nname = "t.bin"\nsize = 1\nsha256 = "{digest}"\nurls = []\n'
    )
    sources = load_sources({"IGCNN_DATA_SOURCES": str(path)})
    (file,) = sources["cifar10"].files
    assert file.urls[0] == "http://mirror.example/c.tar.gz"
    assert len(file.urls) == 3
    assert file.size == 170_052_171  # what the file must be is not for a mirror to say
    assert "toy" in sources


@pytest.mark.parametrize(
    "text",
    [
        "toy = 3",
        "[toy",
        '[toy]\nfiles = [{name = "../x", size = 1, sha256 = "", urls = []}]',
        '[toy]\nfiles = [{name = "x", size = 1, sha256 = "12", urls = []}]',
        '[toy]\nfiles = [{name = "x"}]',
    ],
)
def test_wrong_sources_are_named(tmp_path, text):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"mine\.toml"):
        load_sources({"IGCNN_DATA_SOURCES": str(path)})
    with pytest.raises(ConfigError, match="absent"):
        load_sources({"IGCNN_DATA_SOURCES": str(tmp_path / "absent")})
