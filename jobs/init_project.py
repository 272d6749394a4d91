"""python jobs/init_project.py FOLDER --from FILE [--id COLUMN] [--title COLUMN] [--attribute COLUMN] ...

Also the console script `init_project`.
"""

import sys

from catalog_enrichment.cli import init_project

if __name__ == "__main__":
    sys.exit(init_project())
