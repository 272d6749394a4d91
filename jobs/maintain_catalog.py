"""python jobs/maintain_catalog.py --config FILE [--set section.key=value] ...

Also `spark-submit jobs/maintain_catalog.py ...`, and the console script `maintain_catalog`.
"""

import sys

from catalog_enrichment.cli import maintain_catalog

if __name__ == "__main__":
    sys.exit(maintain_catalog())
