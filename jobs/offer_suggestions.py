"""python jobs/offer_suggestions.py --config FILE [--set section.key=value] ...

Also `spark-submit jobs/offer_suggestions.py ...`, and the console script `offer_suggestions`.
"""

import sys

from catalog_enrichment.cli import offer_suggestions

if __name__ == "__main__":
    sys.exit(offer_suggestions())
