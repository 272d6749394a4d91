"""What a job tells while it runs (logs, stages) and when it has ended (metrics, lineage)."""
