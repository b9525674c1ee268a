"""Device mesh, the rules that place arrays on it, and the hosts that share it."""
