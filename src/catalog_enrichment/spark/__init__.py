"""How Spark is started, and what jobs share of its DataFrames."""
