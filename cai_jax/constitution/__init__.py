"""Constitutions: texts that people write, validated and hashed."""
