"""Eight virtual CPU devices, and models small enough for every test."""

import os
import tempfile

import xla_flags

os.environ["XLA_FLAGS"] = " ".join(
    (os.environ.get("XLA_FLAGS", ""), xla_flags.EIGHT_DEVICES, xla_flags.ONCE)
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# What several tests compile, or commands that they start, is compiled once, by either worker.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    _xla = tempfile.TemporaryDirectory(prefix="xla-")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _xla.name
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ.pop("WANDB_PROJECT", None)  # of whoever runs the tests
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import importlib.util
import json
import runpy
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from clean_environment import VARIABLES, clean_environment
from flax import nnx
from hypothesis import settings
from jax.sharding import AxisType, Mesh
from ml_collections import ConfigDict
from tiny_model import write_tiny_model

from cai_jax import __version__
from cai_jax.config import with_defaults
from cai_jax.models.blueprint import Model
from cai_jax.models.config import DecoderConfig, LoRAConfig
from cai_jax.models.decoder import Decoder

# Tests that share a fixture of minutes are one worker's.
TOGETHER = {"executed_notebook": "notebook", "finished_calls": "finished", "resumed": "finished"}

# Examples are the same in every run, and slow machines fail none of them.
settings.register_profile("fixed", derandomize=True, deadline=None)
settings.load_profile("fixed")

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOK = ROOT / "notebooks" / "cai_demo.ipynb"
SHARED = ROOT.parent / "shared" / "data"

TINY = DecoderConfig(
    vocab_size=97,
    num_layers=3,
    d_model=32,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    d_ff=48,
    max_length=256,
)


def read_config(name: str, *preset: str) -> ConfigDict:
    """What a file of configs/ says."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "configs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(*preset)


def load_config(name: str, *preset: str, **changes) -> dict:
    """A file of configs/ as a dict of all fields, with changes by dotted name."""
    config = ConfigDict(with_defaults(read_config(name, *preset).to_dict()))
    config.update_from_flattened_dict(changes)
    return config.to_dict()


@pytest.hookimpl(tryfirst=True)  # before xdist, which reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A file's tests go to one worker, and the longest first, so that none works on alone."""
    for item in items:
        shared = (name for fixture, name in TOGETHER.items() if fixture in item.fixturenames)
        item.add_marker(pytest.mark.xdist_group(next(shared, item.path.name)))
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(scope="module", autouse=True)
def _programs_do_not_pile_up():
    """XLA maps memory for each program it compiled, and Linux allows a process 65,530 maps."""
    yield
    jax.clear_caches()


@pytest.fixture(scope="session")
def mesh() -> Mesh:
    """A mesh of one device."""
    return jax.make_mesh(
        (1, 1, 1),
        ("data", "fsdp", "tensor"),
        axis_types=(AxisType.Auto,) * 3,
        devices=jax.devices()[:1],
    )


@pytest.fixture(scope="session")
def mesh8() -> Mesh:
    """Two ways of data, two of fsdp, two of tensor parallelism."""
    return jax.make_mesh((2, 2, 2), ("data", "fsdp", "tensor"), axis_types=(AxisType.Auto,) * 3)


def tiny_decoder(seed: int = 0, lora: LoRAConfig | None = None, frozen_layers: int = 0) -> Decoder:
    """A random decoder; weights large enough that distributions are not flat."""
    decoder = Decoder(TINY, lora, jnp.float32, frozen_layers, rngs=nnx.Rngs(seed))
    draw = nnx.initializers.normal(stddev=0.02)
    decoder.embedding.set_value(draw(nnx.Rngs(seed).params(), decoder.embedding[...].shape) * 30)
    return decoder


def at_rest(module: nnx.Module) -> Model:
    """Graph and parameters of a module."""
    return Model(*nnx.split(module))


@pytest.fixture(scope="session")
def decoder() -> Decoder:
    return tiny_decoder()


@pytest.fixture(scope="session")
def model(decoder: Decoder) -> Model:
    return at_rest(decoder)


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory) -> Path:
    """The tiny model in Hugging Face layout."""
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The tiny model once more, for a test that changes its files."""
    return write_tiny_model(tmp_path / "tiny")


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A disk of its own, of 256 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "--types=tmpfs", "--options=size=256m", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a disk")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.fixture
def on_read_only_disk(small_disk):
    """Copies a folder onto a disk that nobody can write to."""

    def copy(folder: Path) -> Path:
        shutil.copytree(folder, small_disk / "run")
        subprocess.run(["mount", "--options=remount,ro", str(small_disk)], check=True)
        return small_disk / "run"

    return copy


@pytest.fixture(scope="session")
def finished_calls(tmp_path_factory, model_folder):
    """All stages run on the tiny model, sharded over the eight devices of this process.

    The run, and the programs that each stage called.
    """
    from tiny_run import run_all, tiny_config

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        return run_all(tiny_config(tmp_path_factory.mktemp("run") / "work", model_folder))


@pytest.fixture(scope="session")
def finished(finished_calls):
    """The run of ``finished_calls``."""
    return finished_calls[0]


def execute_script() -> dict[str, Any]:
    """What notebooks/execute.py defines."""
    return runpy.run_path(str(NOTEBOOK.with_name("execute.py")))


@pytest.fixture(scope="session")
def repository(tmp_path_factory) -> Iterator[str]:
    """The address, on loopback, of a repository that has this checkout, tagged as a release."""
    place = tmp_path_factory.mktemp("git")
    copy, bare = place / "copy", place / "cai_jax.git"
    copy.mkdir()
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    files = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True).stdout
    command = ["xargs", "-0", "cp", "--parents", "-t", str(copy)]
    subprocess.run(command, cwd=ROOT, input=files, check=True)
    for arguments in (
        ["init", "--quiet"],
        ["add", "--all"],
        ["-c", "user.name=us", "-c", "user.email=us@here", "commit", "--quiet", "-m", "a release"],
        ["tag", f"v{__version__}"],
        ["clone", "--quiet", "--bare", ".", str(bare)],
    ):
        subprocess.run(["git", *arguments], cwd=copy, check=True)
    with execute_script()["served"](bare) as address:
        yield address


@pytest.fixture(scope="session")
def execute_notebook(tmp_path_factory):
    """Executes the demo notebook as a stranger gets it: the file alone, in an empty folder.

    Neither the kernel's environment nor that which the notebook installs into has this checkout.
    XLA alone has flags that strangers do not set: it compiles faster with them.
    """
    import nbformat
    from nbclient import NotebookClient

    kernel = clean_environment(tmp_path_factory.mktemp("kernel"))
    kernels = tmp_path_factory.mktemp("jupyter")
    (kernels / "kernels" / "stranger").mkdir(parents=True)
    argv = [str(kernel), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec = {"argv": argv, "display_name": "stranger", "language": "python"}
    (kernels / "kernels" / "stranger" / "kernel.json").write_text(json.dumps(spec))

    def execute(changed=lambda notebook: None, **environment):
        notebook = nbformat.read(NOTEBOOK, as_version=4)
        changed(notebook)
        client = NotebookClient(notebook, timeout=2400, kernel_name="stranger")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("JUPYTER_PATH", str(kernels))
            folder = tmp_path_factory.mktemp("empty")
            client.execute(
                env=VARIABLES | {"XLA_FLAGS": xla_flags.MINUTES} | environment, cwd=str(folder)
            )
        return notebook

    return execute


@pytest.fixture(scope="session")
def executed_notebook(tmp_path_factory, execute_notebook, repository, model_folder):
    """The demo notebook, executed top to bottom, and the workdir of its run.

    The run is the microworld's, for the claims as well: it takes minutes, so there is only one. The
    one under another constitution is short, and the one on a real model is on a tiny one.
    """
    workdir = tmp_path_factory.mktemp("notebook") / "run"
    python = clean_environment(tmp_path_factory.mktemp("own"))
    notebook = execute_notebook(
        CAI_REPO_URL=repository,
        CAI_ENV=str(python.parent.parent),
        CAI_PRESET="fast",
        CAI_WORKDIR=str(workdir),
        CAI_OTHER_FLAGS=flags_of(
            {
                "sl_data.red_team_prompts": 24,
                "sl_data.helpful_prompts": 24,
                "feedback.prompts": 24,
                "feedback.helpful_prompts": 24,
                "feedback.audit_pairs": 24,
                "pm_train.helpfulness_pairs": 64,
                "rl.iterations": 2,
                "evaluate.bootstrap_samples": 100,
            }
        ),
        CAI_REAL_FLAGS=flags_of(
            {
                "model.source": model_folder,
                "warm_up.source": "",
                "sl_data.red_team_prompts": 16,
                "generation.context_tokens": 384,
                "generation.critique_tokens": 24,
            }
        ),
    )
    return notebook, workdir


def flags_of(changes: Mapping[str, Any]) -> str:
    """A config's changes on a command line."""
    return " ".join(f"--config.{name}={value}" for name, value in changes.items())
