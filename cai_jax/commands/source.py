"""The flag of the cache, and sources of models."""

from absl import flags

from cai_jax.models.io.sources import ModelSource, cache_folder, resolve

_CACHE = flags.DEFINE_string("cache", "", "folder of downloads; empty: the XDG cache")


def open_source(name: str) -> ModelSource:
    """A model source, as docs/machine.md lists them."""
    return resolve(name, cache_folder(_CACHE.value))
