"""python jobs/set_switch.py --config FILE [--set section.key=value] ...

Also `spark-submit jobs/set_switch.py ...`, and the console script `set_switch`.
"""

import sys

from catalog_enrichment.cli import set_switch

if __name__ == "__main__":
    sys.exit(set_switch())
