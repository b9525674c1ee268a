"""Ways to attack, one a file; strategies/registry.py lists them."""
