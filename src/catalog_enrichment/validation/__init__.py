"""What a snapshot and a row must keep, and where rows go that do not."""
