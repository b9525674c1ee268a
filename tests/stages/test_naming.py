"""Lower layers know no config: whoever reads a field puts its name before what they say of it."""

from dataclasses import replace

import pytest
from conftest import ROOT
from tiny_run import tiny_config

from cai_jax.config import ConfigError, naming
from cai_jax.generation.batching import check_longest
from cai_jax.parallel.hosts import HostError
from cai_jax.stages import workdir
from cai_jax.stages.pipeline import STAGES
from cai_jax.stages.runner import run_stages
from cai_jax.stages.stage import open_run


@pytest.fixture(autouse=True)
def in_root(monkeypatch):
    monkeypatch.chdir(ROOT)


def test_a_name_is_put_before_what_is_wrong():
    with pytest.raises(ConfigError, match=r"^--mesh: no$"), naming("--mesh"):
        raise ValueError("no")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mesh.fsdp": 3}, r"^config\.mesh: mesh .* needs 6 devices, but there are 8"),
        ({"mesh.decode_tensor": 5}, r"^config\.mesh\.decode_tensor: .*size 5"),
        ({"mesh.fsdp": 3, "mesh.decode_tensor": 2}, r"^config\.mesh: mesh"),
    ],
)
def test_a_mesh_that_does_not_fit_names_its_field(model_folder, tmp_path, changes, words):
    run = open_run(tiny_config(tmp_path, model_folder, **changes))
    with pytest.raises(ConfigError, match=words):
        _ = run.models.decode_mesh


def test_rows_that_are_too_long_name_the_field_of_the_context(model_folder, tmp_path):
    run = open_run(tiny_config(tmp_path / "run", model_folder, stages="sl_data"))
    run.workdir.claim(run.config)
    sl_data = next(stage for stage in STAGES if stage.name == "sl_data")
    long = replace(sl_data, execute=lambda *_: check_longest([70], 64, "sl_data: critiques"))
    words = r"^config\.generation\.context_tokens: sl_data: critiques: a row has up to 70 tokens"
    with pytest.raises(ConfigError, match=words):
        run_stages(run, [long])


def test_a_workdir_that_hosts_do_not_share_names_its_field(model_folder, tmp_path, monkeypatch):
    def blind(folder):
        raise HostError(f"{folder}: host 1 cannot see it")

    monkeypatch.setattr(workdir.hosts, "check_shared", blind)
    run = open_run(tiny_config(tmp_path, model_folder))
    with pytest.raises(HostError, match=r"^config\.workdir: .*host 1 cannot see it"):
        run.workdir.claim(run.config)
