"""Talking to models: in the terminal, and on a page where people vote."""
