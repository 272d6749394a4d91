"""python jobs/explain_value.py --config FILE [--set section.key=value] ...

Also `spark-submit jobs/explain_value.py ...`, and the console script `explain_value`.
"""

import sys

from catalog_enrichment.cli import explain_value

if __name__ == "__main__":
    sys.exit(explain_value())
