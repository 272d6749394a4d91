"""``python -m catalog_enrichment.demo`` is ``make demo``."""

import sys

from catalog_enrichment.demo.run import main

sys.exit(main())
