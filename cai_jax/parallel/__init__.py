"""Device mesh and the rules that place arrays on it."""
