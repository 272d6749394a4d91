"""python jobs/certify_model.py --config FILE [--set section.key=value] ...

Also `spark-submit jobs/certify_model.py ...`, and the console script `certify_model`.
"""

import sys

from catalog_enrichment.cli import certify_model

if __name__ == "__main__":
    sys.exit(certify_model())
