import io

import pytest

from igcnn.errors import ConfigError
from igcnn.training.progress import PlainProgress, Progress, RichProgress, duration, make_progress

ROW = {
    "step": 20,
    "epoch": 1,
    "loss": 1.25,
    "top1": 50.0,
    "lr": 0.1,
    "images_per_second": 1234.0,
    "seconds": 2.0,
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


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "0:00"), (59.6, "1:00"), (3599, "59:59"), (90061, "25:01:01")]
)
def test_duration(seconds, text):
    assert duration(seconds) == text
