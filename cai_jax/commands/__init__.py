"""What the commands share: how they start, and rows of JSONL files."""
