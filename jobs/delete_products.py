"""python jobs/delete_products.py --config FILE [--set section.key=value] ...

Also `spark-submit jobs/delete_products.py ...`, and the console script `delete_products`.
"""

import sys

from catalog_enrichment.cli import delete_products

if __name__ == "__main__":
    sys.exit(delete_products())
