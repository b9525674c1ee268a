"""Constitutions: texts that people write, checked and hashed."""
