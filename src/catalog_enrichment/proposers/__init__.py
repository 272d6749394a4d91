"""Proposers: what a run and a certification take from models and tables that were made elsewhere."""
