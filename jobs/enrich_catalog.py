"""python jobs/enrich_catalog.py --config FILE [--set section.key=value] ...

Also `spark-submit jobs/enrich_catalog.py ...`, and the console script `enrich_catalog`.
"""

import sys

from catalog_enrichment.cli import enrich_catalog

if __name__ == "__main__":
    sys.exit(enrich_catalog())
