"""python jobs/audit_ingest.py --config FILE [--set section.key=value] ...

Also `spark-submit jobs/audit_ingest.py ...`, and the console script `audit_ingest`.
"""

import sys

from catalog_enrichment.cli import audit_ingest

if __name__ == "__main__":
    sys.exit(audit_ingest())
