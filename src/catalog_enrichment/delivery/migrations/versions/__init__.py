"""One file per revision of the tables in the database."""
