import pytest

from igcnn.text import duration, table_lines, wrap_line


def test_lines_break_between_words_and_commands_can_be_copied():
    line = "recipe      epochs 400, batch size 64, lr 0.1 (×0.1 after epochs: 200, 300, 350)"
    assert wrap_line(line, 99) == line
    assert wrap_line(line, 60).splitlines() == [line[:57], " " * 12 + line[58:]]
    path = "/".join(["folder"] * 12)  # longer than the terminal is wide
    assert wrap_line(f"run folder  {path}", 60).split() == ["run", "folder", path]
    command = "next        igcnn eval runs/digits/20260101-120000 --dataset digits"
    first, second = wrap_line(command, 60).splitlines()
    assert (first, second) == (command[:-16].rstrip() + " \\", " " * 12 + "--dataset digits")


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "0:00"), (59.6, "1:00"), (3599, "59:59"), (90061, "25:01:01")]
)
def test_duration(seconds, text):
    assert duration(seconds) == text


def test_a_table_is_aligned():
    rows = [("run", "best"), ("a", "9.50"), ("longer", "–")]
    assert table_lines(rows, (False, True)) == ["run     best", "a       9.50", "longer     –"]
