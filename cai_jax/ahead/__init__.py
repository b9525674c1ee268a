"""Programs of a run, compiled for a TPU slice that need not be there, and what they take."""
