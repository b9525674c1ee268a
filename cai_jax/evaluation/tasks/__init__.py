"""Benchmarks in published formats: files of data that a model is tested on, one kind a file."""
