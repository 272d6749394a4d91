"""What a job says about itself while it runs (logs, progress) and when it has ended (metrics, lineage)."""
