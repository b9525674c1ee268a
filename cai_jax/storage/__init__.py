"""Files that stay what they are: resolved paths, whole writes, sealed folders, one owner."""
