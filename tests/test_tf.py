"""TensorFlow takes seconds to load: only what reads or writes records waits for it."""

import subprocess
import sys

import pytest

from cai_jax import tf

CHECKS = "import sys, cai_jax.main, cai_jax.stages.checks, cai_jax.generation.engine"


def test_checks_do_without():
    program = f"{CHECKS}; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_a_library_is_loaded_when_it_is_asked_for():
    assert tf.tfds.__name__ == "tensorflow_datasets"
    with pytest.raises(AttributeError, match="torch"):
        tf.torch  # noqa: B018
