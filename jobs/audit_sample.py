"""python jobs/audit_sample.py --config FILE [--set section.key=value] ...

Also `spark-submit jobs/audit_sample.py ...`, and the console script `audit_sample`.
"""

import sys

from catalog_enrichment.cli import audit_sample

if __name__ == "__main__":
    sys.exit(audit_sample())
