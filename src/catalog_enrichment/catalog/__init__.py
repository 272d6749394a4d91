"""The catalog: Delta tables (lake), the ledger of values, the table of runs, category filters. Start at base.py."""
