"""Training, from labelled products to a certified model version: job.py is the job, train.py its steps in order."""
