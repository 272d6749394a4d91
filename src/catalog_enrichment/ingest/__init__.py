"""Reading merchants' feeds and importing them into the catalog. Start at :mod:`catalog_enrichment.ingest.job`."""
