"""The Colab notebook: kept without outputs, and runs from top to bottom."""

import nbformat
import pytest
from conftest import NOTEBOOK


def test_it_is_kept_without_outputs():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code
    assert not any(cell.outputs or cell.execution_count for cell in code)


@pytest.mark.slow
def test_it_runs_from_top_to_bottom(executed_notebook):
    """A cell that failed would have stopped it."""
    notebook, workdir = executed_notebook
    cells = {cell.id: cell for cell in notebook.cells if cell.cell_type == "code"}
    assert [cell.execution_count for cell in cells.values()] == list(range(1, len(cells) + 1))
    said = {
        name: "".join(output.get("text", "") for output in cell.outputs)
        for name, cell in cells.items()
    }
    assert "CpuDevice" in said["devices"]
    assert "Name the victims" in said["constitution"]
    assert "rl: done" in said["run"]
    assert said["transcripts"].count("RL-CAI") == 5
    assert said["change"] == ""  # only if somebody asks for it
    for name in ("rounds", "figures"):
        assert any("image/png" in output.get("data", {}) for output in cells[name].outputs), name
    assert (workdir / "report" / "index.html").exists()
