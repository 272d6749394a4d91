"""Pages for people: of a run (run_report.py collects, run_page.py renders), of all runs, a training and a promotion."""
