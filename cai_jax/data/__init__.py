"""Prompts and pairs in, records of finished stages, and the batches that training reads."""
