"""Algorithms that train SL-CAI further on AI feedback, and what they share."""
