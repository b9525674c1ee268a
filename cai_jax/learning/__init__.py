"""Losses, log-probabilities, optimizers and train steps."""
