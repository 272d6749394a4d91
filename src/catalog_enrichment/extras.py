"""The optional packages that jobs import, and the extra of this distribution that installs each.

What Spark's executors need is always installed; `pyproject.toml` has the lists. A job imports an optional package where
it needs it, and :func:`remedy` is what its message says where the package is missing.
"""

from __future__ import annotations

EXTRA_OF = {
    "alembic": "postgres",
    "charset_normalizer": "jobs",
    "cleanlab": "jobs",
    "duckdb": "jobs",
    "fastapi": "audit",
    "fugashi": "ja",
    "great_expectations": "jobs",
    "grpc": "connect",
    "grpc_status": "connect",
    "h11": "audit",
    "ipadic": "ja",
    "iterstrat": "jobs",
    "jinja2": "jobs",
    "mlflow": "jobs",
    "openpyxl": "jobs",
    "prometheus_client": "jobs",
    "psycopg": "postgres",
    "py4j": "spark",
    "pydantic": "audit",
    "pyiceberg": "iceberg",
    "pyspark": "spark",
    "requests": "iceberg",
    "sacremoses": "fr",
    "sentencepiece": "fr",
    "sklearn": "jobs",
    "sqlalchemy": "jobs",
    "threadpoolctl": "jobs",
    "tqdm": "jobs",
    "uvicorn": "audit",
    "zstandard": "connect",
}
"""Import name of an optional package -> extra; of several extras, the one that more jobs need."""

_NOTES = {"spark": ", or run the job with the spark-submit or in the workspace of a cluster, which brings its own"}


def remedy(*packages: str) -> str:
    """Return the command that installs ``packages``, import names of EXTRA_OF."""
    extras = sorted({EXTRA_OF[package] for package in packages})
    return f'pip install "catalog-enrichment[{",".join(extras)}]"'


def missing(package: str) -> str:
    """Return the message about ``package``, an import name of EXTRA_OF, that is not installed."""
    note = _NOTES.get(EXTRA_OF[package], "")
    return f"the package {package} is not installed: {remedy(package)}{note}"
