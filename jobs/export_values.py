"""python jobs/export_values.py --config FILE [--set section.key=value] ...

Also `spark-submit jobs/export_values.py ...`, and the console script `export_values`.
"""

import sys

from catalog_enrichment.cli import export_values

if __name__ == "__main__":
    sys.exit(export_values())
