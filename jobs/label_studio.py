"""python jobs/label_studio.py --config FILE [--set section.key=value] ...

Also `spark-submit jobs/label_studio.py ...`, and the console script `label_studio`.
"""

import sys

from catalog_enrichment.cli import label_studio

if __name__ == "__main__":
    sys.exit(label_studio())
