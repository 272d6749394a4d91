"""A run of enrichment. Start at pipeline.py; its stages are select, score, decide, publish and summary."""
