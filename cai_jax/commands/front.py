"""What all small commands share: how they start, and how a user's mistake ends them."""

import sys
from collections.abc import Callable

import jax
from absl import app, flags, logging

from cai_jax.models.io.sources import ModelSource, cache_folder, resolve

CACHE = flags.DEFINE_string("cache", "", "folder of downloads; empty: the XDG cache")


def run(command: Callable[[], None]) -> None:
    """Parses the flags and runs a command; a user's mistake ends with one line."""

    def main(argv: list[str]) -> None:
        if len(argv) > 1:
            raise app.UsageError(f"unknown arguments: {' '.join(argv[1:])}")
        logging.set_verbosity(logging.WARNING)  # Orbax reports every file
        jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "xla"))
        try:
            command()
        except (ValueError, FloatingPointError, OSError) as error:
            sys.exit(f"error: {error}")

    app.run(main)


def open_source(name: str) -> ModelSource:
    """A model source, as the README lists them."""
    return resolve(name, cache_folder(CACHE.value))
