"""python jobs/rollback_run.py --config FILE [--set section.key=value] ...

Also `spark-submit jobs/rollback_run.py ...`, and the console script `rollback_run`.
"""

import sys

from catalog_enrichment.cli import rollback_run

if __name__ == "__main__":
    sys.exit(rollback_run())
