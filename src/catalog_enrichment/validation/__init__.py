"""Checks of a whole snapshot (``snapshot``) and of single rows (``rows``), and the quarantine of bad rows."""
