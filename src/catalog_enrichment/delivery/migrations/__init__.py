"""Alembic's environment for the tables in the database; its revisions are in versions/."""
