"""The Colab notebook: what it shows is of its code, and it runs from top to bottom."""

import re

import nbformat
import pytest
from conftest import NOTEBOOK, execute_script
from nbclient.exceptions import CellExecutionError

from cai_jax import __version__


def test_what_it_shows_is_of_its_code():
    """``python notebooks/execute.py`` keeps it, and tells of which code."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    execute = execute_script()
    assert notebook.metadata["cai_jax"][execute["KEPT"]] == execute["digest"](notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    silent = [cell.id for cell in code if not cell.outputs]
    assert silent == ["report"]  # it would be a page of megabytes
    shown = [output for cell in code for output in cell.outputs]
    assert not [output for output in shown if output.output_type == "error"]
    said = "".join(output.get("text", "") for output in shown)
    assert "rl: done" in said
    assert "/tmp/" not in said
    assert NOTEBOOK.stat().st_size < 1e6


def test_one_place_says_where_the_repository_is_and_which_release():
    source = NOTEBOOK.read_text(encoding="utf-8")
    address = re.search(r'\\"https://github.com/(\S+?)\.git\\"', source)
    release = f"v{__version__}"
    assert f'\\"CAI_TAG\\", \\"{release}\\"' in source
    assert f"/github/{address[1]}/blob/{release}/notebooks/cai_demo.ipynb" in source


def test_an_address_that_cannot_be_cloned_ends_in_one_sentence(execute_notebook, tmp_path):
    """Before anything is installed."""

    def set_up_alone(notebook):
        notebook.cells = [cell for cell in notebook.cells if cell.id == "setup"]

    with pytest.raises(CellExecutionError) as caught:
        execute_notebook(set_up_alone, CAI_REPO_URL=(tmp_path / "none.git").as_uri())
    assert "put there the address of the repository" in caught.value.evalue
    assert not caught.value.traceback.count("During handling")


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
    assert "git+http://127.0.0.1:" in said["setup"]
    assert "CpuDevice" in said["devices"]
    assert "Name the victims" in said["constitution"]
    assert "rl: done" in said["run"]
    assert said["transcripts"].count("RL-CAI") == 5
    assert "constitutions/microworld/kind.yaml: % of replies" in said["change"]
    assert "pretrain: taken from" in said["change"]
    assert "RL-CAI" in said["change"].partition("% of replies")[2]
    assert "CRITIQUE" in said["real"]
    (page,) = cells["report"].outputs
    assert page.data["text/html"].startswith("<div><iframe srcdoc=")
    assert "cai_demo" in said["setup"]
    for name in ("rounds", "figures"):
        assert any("image/png" in output.get("data", {}) for output in cells[name].outputs), name
    assert (workdir / "report" / "index.html").exists()
