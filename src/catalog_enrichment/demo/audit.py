"""``make audit_demo``: the review page over the demo's catalog, with a sample of what the model wrote.

    python -m catalog_enrichment.demo.audit [--folder var/demo] [--sample 200] [--port 8765]

`make demo` comes first. The sample is drawn uniformly and is the same each time; verdicts stay in review.sqlite in the
folder, so that a later start goes on where people stopped.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from catalog_enrichment.audit.page import demo_sample, serve
from catalog_enrichment.audit.review_store import ReviewStore
from catalog_enrichment.catalog.lake import LakeCatalog
from catalog_enrichment.cli.command import ended
from catalog_enrichment.config.load import load_config
from catalog_enrichment.context import load_dictionary
from catalog_enrichment.errors import ConfigError
from catalog_enrichment.stages import to_stderr


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, draw, serve until stopped, print the JSON line; the exit codes are those of the jobs."""
    parser = argparse.ArgumentParser(
        "make audit_demo", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--folder", type=Path, default=Path("var/demo"), help="where `make demo` has written")
    parser.add_argument("--sample", type=int, default=200, help="values to judge")
    parser.add_argument("--port", type=int, default=serve.DEFAULT_PORT)
    args = parser.parse_args(argv)

    def run(_: set[str]) -> dict[str, Any]:
        config = load_config("config:demo.toml", [f"root={json.dumps(str(args.folder.resolve()))}"])
        catalog = LakeCatalog.of(config)
        if catalog.version("current_values") < 0:
            raise ConfigError(f"there is no demo catalog in {args.folder}: run make demo first")
        path = serve.store_path(config, None)
        with ReviewStore(path) as store:
            sample, items = demo_sample.draw(catalog, load_dictionary(config), args.sample, datetime.now(UTC))
            store.add_sample(sample, items)
        to_stderr(f"sample {sample.sample_id}: {sample.title}")
        return serve.serve_audit(config, path, serve.Listen(port=args.port))

    return ended("audit_demo", run)


if __name__ == "__main__":
    raise SystemExit(main())
