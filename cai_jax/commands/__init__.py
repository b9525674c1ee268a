"""What the commands share: how they start, the flags of configs and models, rows of JSONL files."""
