"""python jobs/apply_requests.py --config FILE [--set section.key=value] ...

Also `spark-submit jobs/apply_requests.py ...`, and the console script `apply_requests`.
"""

import sys

from catalog_enrichment.cli import apply_requests

if __name__ == "__main__":
    sys.exit(apply_requests())
