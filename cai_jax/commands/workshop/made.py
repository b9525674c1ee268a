"""The constitution that import and merge make: a file that people edit afterwards."""

from collections.abc import Sequence
from pathlib import Path

from absl import flags

from cai_jax.commands.files import check_out, out_file
from cai_jax.config import naming

OUT = flags.DEFINE_string("out", None, "YAML file to write; its name is the name", required=True)
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "replace what --out names, edited or not")


def made_file(inputs: Sequence[str | Path], *beside: str) -> Path:
    """The file that --out names, once nothing is in its way.

    Args:
      inputs: what the command reads, and never replaces.
      beside: suffixes of other files that it writes, under the same name.

    Raises:
      ValueError: one of them is no file to write, is an input, or is there already.
    """
    with naming("--out"):
        out = out_file(OUT.value)
        if out.suffix not in (".yaml", ".yml"):
            raise ValueError(f"{out} is no .yaml file; give it that ending")
    written = [out, *(out.with_suffix(suffix) for suffix in beside)]
    check_out(*written, inputs=inputs)
    for file in written:
        if file.exists() and not _OVERWRITE.value:
            raise ValueError(
                f"--out: {file} is there already, and may have been edited; name another file, or "
                "give --overwrite"
            )
    return out
