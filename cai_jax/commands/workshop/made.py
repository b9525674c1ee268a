"""The constitution that import and merge make: a file that people edit afterwards."""

from collections.abc import Sequence
from pathlib import Path

from cai_jax.commands.files import check_out, out_file
from cai_jax.config import naming


def made_file(name: str, overwrite: bool, inputs: Sequence[str | Path], *beside: str) -> Path:
    """The file that --out names, once nothing is in its way.

    Args:
      name: of the file.
      overwrite: whether what is there already may be replaced, edited or not.
      inputs: what the command reads, and never replaces.
      beside: suffixes of other files that it writes, under the same name.

    Raises:
      ValueError: one of them is no file to write, is an input, or is there already.
    """
    with naming("--out"):
        out = out_file(name)
        if out.suffix not in (".yaml", ".yml"):
            raise ValueError(f"{out} is no .yaml file; give it that ending")
    written = [out, *(out.with_suffix(suffix) for suffix in beside)]
    check_out(*written, inputs=inputs)
    for file in written:
        if file.exists() and not overwrite:
            raise ValueError(
                f"--out: {file} is there already, and may have been edited; name another file, or "
                "give --overwrite"
            )
    return out
