"""`make demo` and `make compare` on a generated marketplace. Start with run.py (demo) or compare.py (compare)."""
