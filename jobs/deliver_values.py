"""python jobs/deliver_values.py --config FILE [--set section.key=value] ...

Also `spark-submit jobs/deliver_values.py ...`, and the console script `deliver_values`.
"""

import sys

from catalog_enrichment.cli import deliver_values

if __name__ == "__main__":
    sys.exit(deliver_values())
