import io
import re

import pytest

from igcnn.errors import ConfigError
from igcnn.training.epoch_table import EpochTable
from igcnn.training.progress import PlainProgress, Progress, RichProgress, make_progress

ROW = {
    "step": 20,
    "epoch": 1,
    "loss": 1.25,
    "top1": 50.0,
    "lr": 0.1,
    "images_per_second": 1234.0,
    "seconds": 2.0,
}


EPOCH = {
    "epoch": 3,
    "step": 75,
    "train_loss": 0.51234,
    "train_top1": 81.5,
    "test_loss": 150.0,
    "test_top1": 79.25,
    "test_top5": 100.0,
    "lr": 0.1,
    "seconds": 3700.0,
}
# by width: titles and cells
TABLES = {
    120: (
        "  epoch|training loss|train top-1|test loss|test top-1|test top-5|learning rate|time|",
        "3/400|0.5123|81.50|1.5e+02|79.25|100.00|0.1|1:01:40|best",
    ),
    80: (
        "  epoch|train loss|top-1|test loss|top-1|top-5|lr|time|",
        "3/400|0.5123|81.50|1.5e+02|79.25|100.00|0.1|1:01:40|best",
    ),
    60: ("  epoch|train|top-1|test|top-1|time|", "3/400|0.5123|81.50|1.5e+02|79.25|1:01:40|best"),
}


class Terminal(io.StringIO):
    def isatty(self):
        return True


def show(progress):
    progress.start(0, 100, 25)
    progress.update(ROW)
    progress.log(ROW)
    progress.message("epoch done [100 %]")
    progress.close()


def test_plain_lines_have_no_control_characters():
    stream = io.StringIO()
    show(make_progress("auto", stream))
    first, second = stream.getvalue().splitlines()
    assert first.startswith("epoch 1/4  step 20/100  loss 1.2500  top-1 50.00 %  1234 img/s  left")
    assert second == "epoch done [100 %]"
    assert stream.getvalue().replace("\n", "").isprintable()


def test_the_bar_shows_figures_and_messages():
    stream = Terminal()
    progress = make_progress("auto", stream)
    assert isinstance(progress, RichProgress)
    show(progress)
    for text in ("epoch 1/4", "loss 1.2500", "1234 img/s", "epoch done [100 %]"):
        assert text in stream.getvalue()


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_table_of_epochs_fits_and_is_aligned(width):
    heading, row = EpochTable(400).lines(EPOCH, True, width)
    titles, cells = TABLES[width]
    assert [part for part in re.split("  +", heading.strip())] == titles.strip(" |").split("|")
    assert re.split("  +", row.strip()) == cells.split("|")
    assert max(len(heading), len(row)) <= width
    # columns are right-aligned: a cell ends where its title does
    ends = {match.end() for match in re.finditer(r"\S(?=  |$)", heading)}
    assert {match.end() for match in re.finditer(r"\S(?=  )", row)} == ends


def test_a_heading_stands_at_the_top_and_then_every_twenty_lines():
    table = EpochTable(400)
    counts = [len(table.lines(EPOCH, False, 80)) for _ in range(22)]
    assert counts == [2, *[1] * 19, 2, 1]
    assert len(table.lines(EPOCH, False, 60)) == 2  # the terminal became narrower
    table.count(19)
    assert len(table.lines(EPOCH, False, 60)) == 2


def test_the_best_epoch_is_coloured_on_a_terminal_alone(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    for stream, coloured in ((Terminal(), True), (io.StringIO(), False)):
        progress = make_progress("auto", stream)
        progress.start(0, 100, 25)
        progress.epoch(EPOCH, True)
        progress.epoch(EPOCH, False)
        progress.close()
        lines = [line for line in stream.getvalue().splitlines() if "3/4" in line]
        assert ["best" in line for line in lines] == [True, False]
        assert ["\x1b[1;32m" in line for line in lines] == [coloured, False]


@pytest.mark.parametrize("width", [60, 80, 97, 120])
def test_the_line_of_figures_fits(width):
    progress = Progress()
    progress.start(0, 312_800, 782)
    progress.began -= 90_000 / 391
    row = ROW | {"step": 391, "epoch": 400, "images_per_second": 12345.0}
    line = progress.describe(row, width)
    assert len(line) <= width
    assert line.startswith("epoch 400/400  ")
    for text in ("loss 1.2500", "top-1 50.00 %", "left "):
        assert text in line


def test_none_shows_nothing():
    progress = make_progress("none", io.StringIO())
    assert type(progress) is Progress
    show(progress)


def test_a_reader_who_goes_away_ends_nothing():
    class Closed(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

    show(PlainProgress(Closed()))


def test_unknown_mode():
    with pytest.raises(ConfigError, match="auto, rich, plain, none"):
        make_progress("fancy")
