"""python jobs/list_runs.py --config FILE [--set section.key=value] ...

Also `spark-submit jobs/list_runs.py ...`, and the console script `list_runs`.
"""

import sys

from catalog_enrichment.cli import list_runs

if __name__ == "__main__":
    sys.exit(list_runs())
