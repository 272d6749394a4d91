"""Reports for people: the HTML page of a run (run.py collects, html.py renders) and of a training, figures, tables."""
