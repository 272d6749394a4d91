"""python jobs/train_model.py --config FILE [--set section.key=value] ...

Also `spark-submit jobs/train_model.py ...`, and the console script `train_model`.
"""

import sys

from catalog_enrichment.cli import train_model

if __name__ == "__main__":
    sys.exit(train_model())
