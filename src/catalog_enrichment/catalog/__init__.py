"""The catalog: Delta tables (lake), the ledger of values, the tables that have a file of their own, category filters.

Start at base.py.
"""
