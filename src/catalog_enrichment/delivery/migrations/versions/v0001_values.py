"""The tables of delivered values and of merchants' values, the view of both, the position and the deliveries."""

from __future__ import annotations

from alembic import context, op

from catalog_enrichment.delivery.postgres import quoted

revision = "0001"
down_revision = None

_TABLES = (
    """
    CREATE TABLE {schema}.delivered_values (
        product_id text NOT NULL,
        attribute text NOT NULL,
        "values" text[] NOT NULL,
        number double precision,
        unit text,
        source text NOT NULL CHECK (source IN ('merchant', 'human', 'model')),
        run_id text,
        model_version text,
        certificate_id text,
        asserted_at timestamptz,
        version bigint NOT NULL,
        PRIMARY KEY (product_id, attribute)
    )
    """,
    "CREATE INDEX delivered_values_version ON {schema}.delivered_values (version)",
    "COMMENT ON TABLE {schema}.delivered_values IS 'What the catalog showed at the position; for deliver_values'",
    """
    CREATE TABLE {schema}.merchant_values (
        product_id text NOT NULL,
        attribute text NOT NULL,
        "values" text[] NOT NULL,
        changed_at timestamptz NOT NULL DEFAULT now(),
        number double precision,
        unit text,
        PRIMARY KEY (product_id, attribute)
    )
    """,
    "COMMENT ON TABLE {schema}.merchant_values IS 'What merchants say now; written by the marketplace alone'",
    """
    CREATE VIEW {schema}.catalog_values AS
    SELECT product_id, attribute, "values", number, unit, 'merchant'::text AS source, NULL::text AS run_id,
        NULL::text AS model_version, NULL::text AS certificate_id, changed_at AS since
    FROM {schema}.merchant_values
    WHERE cardinality("values") > 0
    UNION ALL
    SELECT product_id, attribute, "values", number, unit, source, run_id, model_version, certificate_id, asserted_at
    FROM {schema}.delivered_values AS ours
    WHERE source <> 'merchant' AND NOT EXISTS (
        SELECT FROM {schema}.merchant_values AS merchant
        WHERE merchant.product_id = ours.product_id AND merchant.attribute = ours.attribute
            AND cardinality(merchant."values") > 0
    )
    """,
    "COMMENT ON VIEW {schema}.catalog_values IS 'The merchant''s value if there is one, else the delivered one'",
    """
    CREATE TABLE {schema}.position (
        singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
        catalog_id text,
        version bigint,
        moved_at timestamptz,
        CHECK ((catalog_id IS NULL) = (version IS NULL))
    )
    """,
    "INSERT INTO {schema}.position DEFAULT VALUES",
    """
    CREATE TABLE {schema}.deliveries (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        catalog_id text NOT NULL,
        after bigint NOT NULL,
        version bigint NOT NULL,
        kind text NOT NULL CHECK (kind IN ('changes', 'snapshot')),
        reason text NOT NULL,
        run_ids text[] NOT NULL,
        upserted bigint NOT NULL,
        deleted bigint NOT NULL,
        skipped bigint NOT NULL,
        delivered_at timestamptz NOT NULL DEFAULT clock_timestamp()
    )
    """,
)


def upgrade() -> None:
    schema = quoted(context.config.attributes["schema"])
    for statement in _TABLES:
        op.execute(statement.format(schema=schema))


def downgrade() -> None:
    schema = quoted(context.config.attributes["schema"])
    op.execute(f"DROP VIEW {schema}.catalog_values")
    for table in ("deliveries", "position", "merchant_values", "delivered_values"):
        op.execute(f"DROP TABLE {schema}.{table}")
