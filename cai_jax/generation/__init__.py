"""Sampling from a decoder, and log-probabilities of given text."""
