"""What a new version must show before callers get it, held against the one that serves."""
