"""Scoring: the engine (no Spark) and the Iterator pandas UDF over it."""
