"""python jobs/import_products.py --config FILE [--set section.key=value] ...

Also `spark-submit jobs/import_products.py ...`, and the console script `import_products`.
"""

import sys

from catalog_enrichment.cli import import_products

if __name__ == "__main__":
    sys.exit(import_products())
