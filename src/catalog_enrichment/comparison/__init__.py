"""The comparison of models: fit several recipes on one data set and tabulate their metrics. Start with job.py."""
