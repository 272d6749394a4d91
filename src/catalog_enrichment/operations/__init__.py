"""What the people who answer for the catalog do with it: undo a run, explain a value, export suggestions."""
