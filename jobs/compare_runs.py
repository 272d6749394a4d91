"""python jobs/compare_runs.py --config FILE [--set section.key=value] ...

Also `spark-submit jobs/compare_runs.py ...`, and the console script `compare_runs`.
"""

import sys

from catalog_enrichment.cli import compare_runs

if __name__ == "__main__":
    sys.exit(compare_runs())
