"""Proximal policy optimization against a preference model, with a KL penalty."""
