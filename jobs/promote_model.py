"""python jobs/promote_model.py --config FILE [--set section.key=value] ...

Also `spark-submit jobs/promote_model.py ...`, and the console script `promote_model`.
"""

import sys

from catalog_enrichment.cli import promote_model

if __name__ == "__main__":
    sys.exit(promote_model())
