"""Reads, checks, compares and joins constitutions: ``python -m cai_jax.constitution VERB``."""

from cai_jax.commands.verbs import run_verb

if __name__ == "__main__":
    run_verb("python -m cai_jax.constitution", "cai_jax.commands.workshop")
