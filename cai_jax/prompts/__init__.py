"""Text in, token ids out: the only place that applies a chat template."""
