"""The messages of a job while it runs (logs, stages) and when it has ended (metrics, lineage)."""
