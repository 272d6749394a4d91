"""python jobs/export_changes.py --config FILE [--set section.key=value] ...

Also `spark-submit jobs/export_changes.py ...`, and the console script `export_changes`.
"""

import sys

from catalog_enrichment.cli import export_changes

if __name__ == "__main__":
    sys.exit(export_changes())
