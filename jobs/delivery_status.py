"""python jobs/delivery_status.py --config FILE [--set section.key=value] ...

Also `spark-submit jobs/delivery_status.py ...`, and the console script `delivery_status`.
"""

import sys

from catalog_enrichment.cli import delivery_status

if __name__ == "__main__":
    sys.exit(delivery_status())
