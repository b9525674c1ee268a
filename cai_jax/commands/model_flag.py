"""The flag of the one model that a command is about."""

from absl import flags

from cai_jax.commands.source import open_source
from cai_jax.models.io.sources import ModelSource

MODEL = flags.DEFINE_string("model", None, "model source: see the README", required=True)


def named_source() -> ModelSource:
    """The source that --model names."""
    return open_source(MODEL.value)
