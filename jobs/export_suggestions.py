"""python jobs/export_suggestions.py --config FILE [--set section.key=value] ...

Also `spark-submit jobs/export_suggestions.py ...`, and the console script `export_suggestions`.
"""

import sys

from catalog_enrichment.cli import export_suggestions

if __name__ == "__main__":
    sys.exit(export_suggestions())
