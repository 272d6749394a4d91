"""Where products come from and where values go: lake, ledger and source feeds."""
