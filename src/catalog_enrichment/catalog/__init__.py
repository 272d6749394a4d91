"""The catalog: its Delta tables (start at lake.py), the ledger of values, and tables that have a file of their own."""
