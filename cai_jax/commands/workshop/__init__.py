"""Verbs of ``python -m cai_jax.constitution``, a module each."""
