"""python jobs/backfill.py --config FILE [--set section.key=value] ...

Also `spark-submit jobs/backfill.py ...`, and the console script `backfill`.
"""

import sys

from catalog_enrichment.cli import backfill

if __name__ == "__main__":
    sys.exit(backfill())
