"""``make audit_demo``: the review page over the demo's catalog, with a sample of what the model wrote.

    python -m catalog_enrichment.demo.audit_demo [--folder var/demo] [--sample 200] [--port 8765]

`make demo` comes first. The sample is that of `audit_sample`: `audit_ingest` can ingest it. The same catalog
gives the same sample, and verdicts stay in review.sqlite in the folder, so that a later start goes on where people
stopped.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catalog_enrichment.audit import sampling
from catalog_enrichment.audit.draws import DrawRequest
from catalog_enrichment.audit.page import serve
from catalog_enrichment.audit.review_store import ReviewStore
from catalog_enrichment.catalog.lake import Catalog
from catalog_enrichment.cli.command import ended
from catalog_enrichment.config.load import load_config
from catalog_enrichment.context import open_for_writing
from catalog_enrichment.errors import ConfigError
from catalog_enrichment.monitoring.stages import to_stderr
from catalog_enrichment.records import Source

if TYPE_CHECKING:
    from catalog_enrichment.config.schema import Config

UNIFORM_SHARE = 0.7
"""The part of the sample that is drawn uniformly; the rest is drawn near the threshold."""


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, draw, serve until stopped, print the JSON line; the exit codes are those of the jobs."""
    parser = argparse.ArgumentParser(
        "make audit_demo", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--folder", type=Path, default=Path("var/demo"), help="where `make demo` has written")
    parser.add_argument("--sample", type=int, default=200, help="values to judge, about")
    parser.add_argument("--port", type=int, default=serve.DEFAULT_PORT)
    args = parser.parse_args(argv)

    def run(_: set[str]) -> dict[str, Any]:
        config = load_config("config:demo.toml", [f"root={json.dumps(str(args.folder.resolve()))}"])
        path = serve.store_path(config, None)
        with ReviewStore(path) as store:
            drawn = draw(config, store, args.sample)
        to_stderr(f"sample {drawn['sample_id']}: {drawn['title']}, {drawn['drawn']}")
        return serve.serve_audit(config, path, serve.Listen(port=args.port))

    return ended("audit_demo", run)


def draw(config: Config, store: ReviewStore, count: int) -> dict[str, Any]:
    """Draw about ``count`` written values by `audit_sample`; returns its summary. Spark ends with it.

    Raises ConfigError where there is no written value.
    """
    request = request_of(config, Catalog.of(config), count)
    with open_for_writing(config, "audit_demo") as context:
        try:
            return sampling.audit_sample(context, store, request)
        finally:
            context.spark.stop()


def request_of(config: Config, catalog: Catalog, count: int) -> DrawRequest:
    """Return a request for about ``count`` values, as many of each attribute. Raises ConfigError without any value."""
    attributes = _written_attributes(catalog)
    if not attributes:
        raise ConfigError(f"there is no demo catalog with values of a model in {config.root}: run make demo first")
    of_each = ceil(count / len(attributes))
    uniform = max(1, round(UNIFORM_SHARE * of_each))
    return DrawRequest.of(config.audit, attributes=attributes, uniform=uniform, near=of_each - uniform)


def _written_attributes(catalog: Catalog) -> tuple[str, ...]:
    """Return the attributes of which readers see values of a model."""
    if catalog.version("current_values") < 0:
        return ()
    batches = catalog.scan("current_values", ("attribute", "source"))
    rows = (row for batch in batches for row in batch.to_pylist())
    return tuple(sorted({row["attribute"] for row in rows if row["source"] == Source.MODEL.value}))


if __name__ == "__main__":
    raise SystemExit(main())
