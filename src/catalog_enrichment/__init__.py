"""Fill the missing attributes of a marketplace's products, and write only what is certified to be right.

Start reading at :mod:`catalog_enrichment.enrichment.pipeline`.
"""

__version__ = "0.1.0"
