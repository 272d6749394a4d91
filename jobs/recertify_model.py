"""python jobs/recertify_model.py --config FILE [--set section.key=value] ...

Also `spark-submit jobs/recertify_model.py ...`, and the console script `recertify_model`.
"""

import sys

from catalog_enrichment.cli import recertify_model

if __name__ == "__main__":
    sys.exit(recertify_model())
