"""Measures of text and of scores."""
