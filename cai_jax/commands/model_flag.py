"""The flag of the one model that a command is about."""

from absl import flags

from cai_jax.commands.source import open_source
from cai_jax.models.io.sources import ModelSource

MODEL = flags.DEFINE_string("model", None, "model source: see docs/machine.md")


def named_source() -> ModelSource:
    """The source that --model names.

    Raises:
      ValueError: it names none.
    """
    if not MODEL.value:
        raise ValueError("--model: of which model? name its source, as docs/machine.md lists them")
    return open_source(MODEL.value)
