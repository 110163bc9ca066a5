"""The notebook in examples/ runs, and shows what it says."""

import re
from pathlib import Path

import nbclient
import nbformat

PATH = Path(__file__).parents[1] / "examples" / "09_notebook.ipynb"


def test_it_is_kept_without_outputs():
    notebook = nbformat.read(PATH, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)


def test_it_runs(tmp_path):
    notebook = nbformat.read(PATH, as_version=4)
    client = nbclient.NotebookClient(
        notebook, timeout=120, resources={"metadata": {"path": tmp_path}}
    )
    client.execute()
    shown = [shown_of(cell) for cell in notebook.cells if cell.cell_type == "code"]
    whole = "\n".join(shown)
    assert "1,437 training and 360 test images" in shown[0]
    assert shown[0].count("data:image/png") == 1
    assert "backend" in shown[1]
    assert "data:image/svg+xml" in shown[2]
    last = re.findall(r"\((\d), ([\d.]+)\)", shown[3])[-1]
    assert float(last[1]) > 90
    assert "<td" in shown[4]
    assert "Tensor(shape=(), dtype=float32, by divide, 7.5)" in shown[5]
    assert "multiply" in shown[6]
    assert re.search(r"0\.5, 1\. ?\],\s*\[1\.5, 2\. ?\]", shown[7])
    assert "gradcheck passed" in shown[8]
    assert re.search(r"\[ 0,  3,  6,  9\],\s*\[ 1,  4,  7, 10\],\s*\[ 2,  5,  8, 11\]", shown[9])
    assert "True" in shown[10]
    label = re.search(r"label (\d)", shown[11])[1]
    assert f"[('{label}', " in shown[11]
    assert "Error" not in whole
    assert (tmp_path / "runs" / "digits").is_dir()


def shown_of(cell):
    """Return what a cell shows: its text, and HTML in place of the text where there is some."""
    parts = []
    for output in cell.outputs:
        data = output.get("data", {})
        parts.append(output.get("text") or data.get("text/html") or data.get("text/plain", ""))
    return "\n".join(parts)
