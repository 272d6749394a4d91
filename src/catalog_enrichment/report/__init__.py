"""Reports for people: the HTML page of a run (run.py collects, html.py renders), figures, tables. Start with run.py."""
