"""python jobs/serve_audit.py --config FILE [--set section.key=value] ...

Also `spark-submit jobs/serve_audit.py ...`, and the console script `serve_audit`.
"""

import sys

from catalog_enrichment.cli import serve_audit

if __name__ == "__main__":
    sys.exit(serve_audit())
