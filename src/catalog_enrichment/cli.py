"""The jobs: parse, config, one call, one JSON line, one exit code.

Each function is the ``main`` of a console script and of ``jobs/NAME.py``. What can be wrong with the config and the
registry is found before Spark starts. Progress goes to stderr; the last line of stdout is the JSON summary.

Exit codes: 0 ok, 2 bad config or data contract, 3 a gate refused, 1 a bug.
"""

from __future__ import annotations

import argparse
import json
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catalog_enrichment.config.load import load_config
from catalog_enrichment.config.schema import Config
from catalog_enrichment.errors import CatalogEnrichmentError, ConfigError
from catalog_enrichment.stages import to_stderr

if TYPE_CHECKING:
    from catalog_enrichment.registry.model_registry import ResolvedModel

Summary = dict[str, Any]
Flags = Callable[[argparse.ArgumentParser], None]
Body = Callable[[Config, argparse.Namespace], Summary]


def import_products(argv: Sequence[str] | None = None) -> int:
    """Pull products from the source into the catalog's products table; bad rows go to quarantine with a reason."""
    return _run(import_products, argv, _import_products)


def _import_products(config: Config, _: argparse.Namespace) -> Summary:
    from catalog_enrichment.context import open_for_writing
    from catalog_enrichment.ingest import job

    if config.source is None:
        raise ConfigError("the config has no [source] section: import_products does not know what to read")
    with open_for_writing(config, "import_products") as context:
        return job.import_products(context)


def train_model(argv: Sequence[str] | None = None) -> int:
    """Train on the merchants' values, evaluate, certify, and register a new model version as the candidate."""
    return _run(train_model, argv, _train_model)


def _train_model(config: Config, _: argparse.Namespace) -> Summary:
    from catalog_enrichment.training import job

    return job.train_model(config)


def compare_models(argv: Sequence[str] | None = None) -> int:
    """Train the recipes of [compare] beside each other and write the tables; certifies and registers nothing."""
    return _run(compare_models, argv, _compare_models)


def _compare_models(config: Config, _: argparse.Namespace) -> Summary:
    from catalog_enrichment.comparison import job

    return job.compare_models(config)


def promote_model(argv: Sequence[str] | None = None) -> int:
    """Compare the candidate with the champion by the promotion policy; if it passes, make it the champion."""

    def flags(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--version", help="promote this version instead of the candidate alias's")
        parser.add_argument(
            "--expect-current", help="refuse unless this version is the champion now ('none': no champion)"
        )
        parser.add_argument("--go-back", action="store_true", help="make the previous champion the champion again")
        parser.add_argument("--dry-run", action="store_true", help="only print the gate's verdict")

    return _run(promote_model, argv, _promote_model, flags)


def _promote_model(config: Config, args: argparse.Namespace) -> Summary:
    from catalog_enrichment.registry.model_registry import Registry

    registry = Registry(config)
    if args.go_back:
        return registry.go_back()
    return registry.promote_through_gate(args.version, expected_current=args.expect_current, dry_run=args.dry_run)


def enrich_catalog(argv: Sequence[str] | None = None) -> int:
    """Score every new, changed or unscored product with the champion and publish the values that are certified."""

    def flags(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--dry-run", action="store_true", help="print what would change; nothing is written")
        parser.add_argument("--max-products", type=_count, help="score at most this many, newest first")
        parser.add_argument("--no-report", action="store_true", help="do not write the HTML report")

    return _run(enrich_catalog, argv, _enrich_catalog, flags)


def _enrich_catalog(config: Config, args: argparse.Namespace) -> Summary:
    from catalog_enrichment.context import open_for_writing
    from catalog_enrichment.enrichment import pipeline
    from catalog_enrichment.enrichment.select import Window
    from catalog_enrichment.report import run

    model = _resolve(config)
    limit = config.enrich.max_products if args.max_products is None else args.max_products
    with open_for_writing(config, "enrich_catalog") as context:
        summary = pipeline.enrich(context, model, Window(max_products=limit), dry_run=args.dry_run)
    if not args.no_report and not args.dry_run and summary["run_id"]:
        summary["report"] = str(run.write_report(context, summary["run_id"]))
    return summary


def backfill(argv: Sequence[str] | None = None) -> int:
    """Enrich a chosen slice of the catalog in resumable chunks, with an estimate first."""

    def flags(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--category", action="append", help="category path, with all below it; repeatable")
        parser.add_argument("--updated-from", help="ISO date or time, inclusive")
        parser.add_argument("--updated-until", help="ISO date or time, exclusive")
        parser.add_argument("--product-id", action="append", help="product id; repeatable")
        parser.add_argument("--product-ids-file", help="file with one product id per line")
        parser.add_argument("--model-version", help="run this model version instead of the champion")
        parser.add_argument("--chunk-products", type=_count, help="products per chunk; each chunk is a run")
        parser.add_argument("--estimate", action="store_true", help="print the estimate and stop")
        parser.add_argument("--dry-run", action="store_true", help="print what would change; nothing is written")

    return _run(backfill, argv, _backfill, flags)


def _backfill(config: Config, args: argparse.Namespace) -> Summary:
    from catalog_enrichment.context import open_context, open_for_writing
    from catalog_enrichment.enrichment import backfill as backfilling

    window = backfilling.window_of(config)
    model = _resolve(config)
    if args.estimate:
        return {"status": "estimate"} | backfilling.estimate(open_context(config, "backfill"), model, window)
    with open_for_writing(config, "backfill") as context:
        return backfilling.backfill(context, model, window, dry_run=args.dry_run)


def rollback_run(argv: Sequence[str] | None = None) -> int:
    """Undo a run, or one attribute of it. Undoing a rollback brings the values back."""

    def flags(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--run-id", required=True, help="the run to undo")
        parser.add_argument("--attribute", help="undo only this attribute")
        parser.add_argument("--dry-run", action="store_true", help="count what would be undone; nothing is written")

    return _run(rollback_run, argv, _rollback_run, flags)


def _rollback_run(config: Config, args: argparse.Namespace) -> Summary:
    from catalog_enrichment.context import open_for_writing
    from catalog_enrichment.operations import operate

    with open_for_writing(config, "rollback_run") as context:
        return operate.rollback_run(context, args.run_id, args.attribute, args.dry_run)


def explain_value(argv: Sequence[str] | None = None) -> int:
    """Say who wrote a value, why, with which certificate, its history, and how to undo it."""

    def flags(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--product-id", required=True)
        parser.add_argument("--attribute", required=True)

    return _run(explain_value, argv, _explain_value, flags)


def _explain_value(config: Config, args: argparse.Namespace) -> Summary:
    from catalog_enrichment.context import open_context
    from catalog_enrichment.operations import operate

    return operate.explain_value(open_context(config, "explain_value"), args.product_id, args.attribute)


def export_suggestions(argv: Sequence[str] | None = None) -> int:
    """Write disagreements with merchants and near misses, per shop, as CSV or parquet."""

    def flags(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--output", required=True, help="folder to write; one folder per shop inside")
        parser.add_argument("--format", choices=("csv", "parquet"), default="csv")

    return _run(export_suggestions, argv, _export_suggestions, flags)


def _export_suggestions(config: Config, args: argparse.Namespace) -> Summary:
    from catalog_enrichment.context import open_context
    from catalog_enrichment.operations import operate

    context = open_context(config, "export_suggestions")
    return operate.export_suggestions(context, Path(args.output).resolve(), args.format)


def _resolve(config: Config) -> ResolvedModel:
    """The one model version of this run (I3), checked against the dictionary."""
    from catalog_enrichment.context import load_dictionary
    from catalog_enrichment.registry.model_registry import Registry

    words, registry = load_dictionary(config), Registry(config)
    model = registry.resolve(version=config.enrich.model_version or None, alias=config.enrich.alias or None)
    registry.check_labels(model, words)
    return model


_ARGUMENT_OVERRIDES = {
    "category": "backfill.categories",
    "updated_from": "backfill.updated_from",
    "updated_until": "backfill.updated_until",
    "product_id": "backfill.product_ids",
    "product_ids_file": "backfill.product_ids_file",
    "chunk_products": "backfill.chunk_products",
    "model_version": "enrich.model_version",
}
"""Arguments of `backfill` that are short for a --set."""


def _run(job: Callable[..., int], argv: Sequence[str] | None, body: Body, flags: Flags | None = None) -> int:
    """Parse, load the config, call the body, print the summary; returns the exit code."""
    name = job.__name__
    parser = argparse.ArgumentParser(name, description=job.__doc__, epilog=(__doc__ or "").rsplit("\n\n", 1)[-1])
    parser.add_argument(
        "--config", required=True, metavar="FILE", help="TOML file, or config:NAME.toml for a shipped one"
    )
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="override; repeatable")
    if flags:
        flags(parser)
    args = parser.parse_args(argv)
    try:
        overrides = args.set + (_as_overrides(args) if name == "backfill" else [])
        summary = {"job": name} | body(load_config(args.config, overrides), args)
        code = 0
    except CatalogEnrichmentError as problem:
        code, kind = problem.exit_code, type(problem).__name__
        to_stderr(f"{name}: {kind}: {problem}")
        summary = {"job": name, "status": "refused" if code == 3 else "error", "error": kind, "message": str(problem)}
    except Exception as problem:
        code = 1
        traceback.print_exc()
        summary = {"job": name, "status": "bug", "error": type(problem).__name__, "message": str(problem)[:2000]}
    print(json.dumps(summary | {"exit_code": code}, default=str), flush=True)
    return code


def _as_overrides(args: argparse.Namespace) -> list[str]:
    given = {setting: getattr(args, name) for name, setting in _ARGUMENT_OVERRIDES.items()}
    return [f"{setting}={json.dumps(value)}" for setting, value in given.items() if value is not None]


def _count(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"must not be negative: {number}")
    return number
