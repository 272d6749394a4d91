"""`make demo` and `make compare` on a generated marketplace. Start with __main__.py (demo) or compare.py (compare)."""
