"""The jobs that train, compare, certify and promote model versions."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from catalog_enrichment.cli.command import Summary, config_options, job, non_negative
from catalog_enrichment.config.schema import Config
from catalog_enrichment.errors import ConfigError
from catalog_enrichment.monitoring.stages import to_stderr

if TYPE_CHECKING:
    from catalog_enrichment.registry.model_registry import Registry


def _train_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--if-new", type=non_negative, metavar="N",
        help="train only if at least N labelled products are new or changed since the newest training; for schedules",
    )  # fmt: skip


@job(_train_arguments)
def train_model(config: Config, args: argparse.Namespace) -> Summary:
    """Train on the merchants' values, evaluate, certify, and register a new model version as the candidate."""
    from catalog_enrichment.training import job as training_job

    return training_job.train_model(config, args.if_new)


@job()
def compare_models(config: Config, _: argparse.Namespace) -> Summary:
    """Train the recipes of [compare] beside each other and write the tables; certifies and registers nothing."""
    from catalog_enrichment.comparison import job as comparison_job

    return comparison_job.compare_models(config)


def _certify_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--by-verdicts", metavar="ATTRIBUTE",
        help="certify this attribute of a registered version by people's verdicts on proposals drawn with audit_sample "
             "--of proposals; without it the model or the answers of [proposer] are certified by merchants' labels",
    )  # fmt: skip
    parser.add_argument(
        "--model-version", metavar="VERSION",
        help="with --by-verdicts: certify this version; default: the candidate, else the champion",
    )  # fmt: skip
    parser.add_argument(
        "--dry-run", action="store_true", help="with --by-verdicts: print the tests; nothing is registered"
    )


@job(_certify_arguments)
def certify_model(config: Config, args: argparse.Namespace) -> Summary:
    """Certify without training: a model or answers that were made elsewhere ([proposer]), or by people's verdicts."""
    from catalog_enrichment.audit import certify_by_verdicts as by_verdicts
    from catalog_enrichment.context import open_for_writing
    from catalog_enrichment.registry.model_registry import Registry
    from catalog_enrichment.training import certify_job, proposals

    if args.by_verdicts is None:
        if args.model_version or args.dry_run:
            raise ConfigError("--model-version and --dry-run need --by-verdicts ATTRIBUTE")
        proposals.settings_of(config)
        with open_for_writing(config, "certify_model") as context:
            return certify_job.certify_proposals(context, Registry(config))
    request = by_verdicts.CertifyRequest(args.by_verdicts, args.model_version, args.dry_run)
    with open_for_writing(config, "certify_model", args.dry_run) as context:
        return by_verdicts.certify_by_verdicts(context, Registry(config), request, config_options(args))


def _promote_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--to-version", "--version", help="promote this version, older or newer, instead of the candidate alias's"
    )
    parser.add_argument("--expect-current", help="refuse unless this version is the champion now ('none': no champion)")
    parser.add_argument("--override", metavar="REASON", help="promote where the gate is inconclusive, and record why")
    parser.add_argument("--go-back", action="store_true", help="make the previous champion the champion again")
    parser.add_argument("--history", action="store_true", help="print all promotions, with their reasons, and stop")
    parser.add_argument(
        "--dry-run", action="store_true", help="print the gate's verdict and what would change for readers, and stop"
    )
    parser.add_argument("--all-products", action="store_true", help="with --dry-run: score all products, not a sample")


@job(_promote_arguments)
def promote_model(config: Config, args: argparse.Namespace) -> Summary:
    """Compare the candidate with the champion by the promotion policy; if it passes, make it the champion."""
    from catalog_enrichment.catalog.lake import Catalog
    from catalog_enrichment.context import follow_dictionary
    from catalog_enrichment.registry.model_registry import Registry
    from catalog_enrichment.registry.promotion import Promotion, PromotionRequest, describe

    registry = Registry(config)
    promotion = Promotion(registry, follow_dictionary(config, Catalog.of(config)))
    if args.history:
        history = promotion.history()
        for event in history:
            to_stderr(describe(event))
        return {"status": "history", "model_name": config.mlflow.model_name, "history": history}
    if args.go_back:
        return promotion.go_back()
    request = PromotionRequest(
        version=args.to_version, expected_current=args.expect_current, dry_run=args.dry_run, override=args.override
    )
    summary = promotion.through_gate(request)
    return summary | _promotion_diff(config, registry, summary, args.all_products) if args.dry_run else summary


def _promotion_diff(config: Config, registry: Registry, gate: Summary, all_products: bool) -> Summary:
    """Return what readers of the catalog would see change after the promotion; empty if there are no products."""
    from catalog_enrichment.catalog.lake import Catalog
    from catalog_enrichment.context import open_context
    from catalog_enrichment.operations import promotion_diff

    if Catalog.of(config).version("products") < 0:
        return {}
    model = registry.resolve(version=gate["model_version"])
    sampled_products = 0 if all_products else promotion_diff.SAMPLED_PRODUCTS
    context = open_context(config, "promote_model")
    return {"diff": promotion_diff.promotion_diff(context, model, gate, sampled_products)}
