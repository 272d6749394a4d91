"""Fill the missing attributes of a marketplace's products, and write only what is certified to be right.

Start reading at :mod:`catalog_enrichment.enrichment.pipeline`, which is one run from top to bottom. README.md lists the
packages under "Where things are".
"""

__version__ = "0.1.0"
