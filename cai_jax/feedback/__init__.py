"""AI feedback: which of two responses keeps closer to the constitution."""
