"""python jobs/list_empty.py --config FILE [--set section.key=value] ...

Also `spark-submit jobs/list_empty.py ...`, and the console script `list_empty`.
"""

import sys

from catalog_enrichment.cli import list_empty

if __name__ == "__main__":
    sys.exit(list_empty())
