"""python jobs/import_proposals.py --config FILE [--set section.key=value] ...

Also `spark-submit jobs/import_proposals.py ...`, and the console script `import_proposals`.
"""

import sys

from catalog_enrichment.cli import import_proposals

if __name__ == "__main__":
    sys.exit(import_proposals())
