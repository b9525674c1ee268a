"""Constitutional AI (Bai et al. 2022) end to end in JAX and Flax."""

__version__ = "0.3.0"
