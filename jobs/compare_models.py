"""python jobs/compare_models.py --config FILE [--set section.key=value] ...

Also the console script `compare_models`. The last line of stdout is one JSON object:
{recipe: {attribute: {"r_at_p95", "macro_f1", "accuracy"}, "seconds"}, ...} and the job's usual keys, whose values are
not objects.
"""

import sys

from catalog_enrichment.cli import compare_models

if __name__ == "__main__":
    sys.exit(compare_models())
