"""python -m tests.benchmarks.fault_cli JOB --config FILE ...: a job as a module, for processes that start it."""

import sys

from catalog_enrichment import cli

if __name__ == "__main__":
    sys.exit(getattr(cli, sys.argv[1])(sys.argv[2:]))
