"""python jobs/set_value.py --config FILE [--set section.key=value] ...

Also `spark-submit jobs/set_value.py ...`, and the console script `set_value`.
"""

import sys

from catalog_enrichment.cli import set_value

if __name__ == "__main__":
    sys.exit(set_value())
