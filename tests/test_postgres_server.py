"""The server that tests of deliveries and of the PostgreSQL source use."""

from __future__ import annotations

import psycopg

from .postgres_server import PostgresServer


def test_what_was_committed_is_there_after_the_server_was_killed(postgres: PostgresServer) -> None:
    uri = postgres.new_database("survives")
    with psycopg.connect(uri) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 7 AS number")

    postgres.kill()
    postgres.start()

    with psycopg.connect(uri) as connection:
        assert connection.execute("SELECT number FROM kept").fetchone() == (7,)
