"""``make compare``: compare the models of the five papers, on a generated marketplace or on a file of listings.

    python -m catalog_enrichment.demo.compare --generate [--products 3000] [--set KEY=VALUE]
    python -m catalog_enrichment.demo.compare --config FILE --data FILE [--set KEY=VALUE]

With --generate a marketplace is generated at the config's source path, unless that file exists. Every file of --data
has its own catalog, because an import removes no product. Prints the paths of the tables and, last, a JSON line,
{recipe: {attribute: {"r_at_p95", "macro_f1", "accuracy"}, "seconds"}, ...}.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catalog_enrichment import resources
from catalog_enrichment.comparison.compared_models import compared_models
from catalog_enrichment.comparison.job import compare_models
from catalog_enrichment.config.load import load_config
from catalog_enrichment.context import open_for_writing
from catalog_enrichment.demo import marketplace
from catalog_enrichment.errors import CatalogEnrichmentError, ConfigError
from catalog_enrichment.ingest.job import import_products
from catalog_enrichment.monitoring.stages import Stages, to_stderr

if TYPE_CHECKING:
    from catalog_enrichment.config.schema import Config


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, run, print the JSON line; the exit codes are those of the jobs."""
    parser = argparse.ArgumentParser("make compare", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--config", default="config:compare_demo.toml", metavar="FILE")
    parser.add_argument("--data", type=Path, help="file to import instead of the config's source")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE")
    parser.add_argument("--generate", action="store_true", help="generate a marketplace if the source file is missing")
    parser.add_argument("--products", type=int, default=3000, help="size of a generated marketplace")
    parser.add_argument("--seed", type=int, default=7, help="seed of a generated marketplace")
    args = parser.parse_args(argv)
    resources.sleep_while_waiting()
    try:
        config = load_config(args.config, args.set)
        if args.data:
            own_catalog = f"catalog.path={json.dumps(f'{config.catalog.path}/{args.data.stem}')}"
            source = f"source.path={json.dumps(str(args.data.resolve()))}"
            config = load_config(args.config, [*args.set, own_catalog, source])
        models = run(config, args.products if args.generate else 0, args.seed)
    except CatalogEnrichmentError as problem:
        to_stderr(f"compare: {type(problem).__name__}: {problem}")
        return problem.exit_code
    print(json.dumps(models))
    return 0


def run(config: Config, products: int, seed: int) -> dict[str, Any]:
    """Import, then compare; return the models' part of the job's summary.

    ``products``: size of the marketplace that is generated if the source file is missing; 0: raise ConfigError instead.
    """
    if config.source is None:
        raise ConfigError("the config has no [source] section: there is nothing to import")
    compared_models(config)
    stages, source = Stages(), config.path(config.source.path)
    if not source.exists():
        if not products or source.name != "products.jsonl":  # the name of a generated marketplace
            raise ConfigError(f"source.path: no such file: {source}. Name a file: make compare DATA=FILE")
        with stages("generate") as stage:
            stage.rows_out = marketplace.generate(source.parent, products, seed, progress=sys.stderr.isatty()).rows
    with stages("import"), open_for_writing(config, "compare") as context:
        import_products(context)
        context.spark.stop()  # frees its memory for the training
    summary = compare_models(config)
    for name in ("report", "markdown", "mlflow_run_id"):
        print(f"{name.replace('_', ' '):<14}{summary[name]}")
    return {name: model for name, model in summary.items() if isinstance(model, dict)}


if __name__ == "__main__":
    sys.exit(main())
