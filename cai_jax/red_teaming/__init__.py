"""Attacks that a model writes: on what, how, which are kept, and whether they succeed."""
