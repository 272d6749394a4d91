"""The audit's jobs: draw samples, take in verdicts, certify again, switch attributes off and on."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from catalog_enrichment import failures
from catalog_enrichment.cli.command import Summary, config_options, job, repeatable
from catalog_enrichment.config.schema import Config
from catalog_enrichment.errors import ConfigError
from catalog_enrichment.monitoring.stages import to_stderr

if TYPE_CHECKING:
    from catalog_enrichment.catalog.lake import Catalog


def _sample_arguments(parser: argparse.ArgumentParser) -> None:
    populations = ("accepted", "suggestions", "abstentions", "proposals")
    parser.add_argument("--of", choices=populations, default=populations[0], help="what to draw; default %(default)s")
    parser.add_argument(
        "--gold", type=int, metavar="N",
        help="draw N products without a merchant value instead, and ask for all values that they lack",
    )  # fmt: skip
    parser.add_argument(
        "--run", "--run-id", metavar="RUN_ID",
        help="only what this run wrote, which corrects it but counts for no estimate; default: all",
    )  # fmt: skip
    repeatable(parser, "--attribute", help="only this attribute")
    parser.add_argument(
        "--uniform", type=int,
        help="values per attribute, each as likely; with --of proposals products; default audit.uniform",
    )  # fmt: skip
    parser.add_argument("--near", type=int, help="further values near the threshold; default audit.near")
    parser.add_argument("--reviewers", type=int, help="verdicts that each needs; default audit.reviewers")
    parser.add_argument("--seed", type=int, default=0, help="another number draws another sample of the same catalog")
    parser.add_argument(
        "--whole-products", action="store_true",
        help="also the other values of products drawn uniformly: to certify an attribute with several values again",
    )  # fmt: skip
    parser.add_argument(
        "--model-version", metavar="VERSION",
        help="with --of proposals: of this model version; default: the version of the newest decisions",
    )  # fmt: skip
    parser.add_argument(
        "--lowest", type=float, metavar="SCORE", help="with --of proposals: only proposals with at least this score"
    )


@job(_sample_arguments)
def audit_sample(config: Config, args: argparse.Namespace) -> Summary:
    """Draw written values, proposals, suggestions, abstentions or products for reviewers, with known probabilities."""
    from catalog_enrichment.audit import sampling
    from catalog_enrichment.audit.draws import DrawRequest, SampledPopulation
    from catalog_enrichment.audit.review_store import ReviewStore
    from catalog_enrichment.context import load_dictionary, open_for_writing

    given = {name: getattr(args, name) for name in ("uniform", "near", "reviewers", "model_version", "lowest")}
    population = SampledPopulation(args.of)
    if args.gold is not None:
        _check_alone(args)
        population, given["uniform"] = SampledPopulation.GOLD, args.gold
    request = DrawRequest.of(
        config.audit,
        population=population,
        run_id=args.run,
        attributes=tuple(args.attribute),
        seed=args.seed,
        whole_products=args.whole_products,
        **given,
    )
    request.check(load_dictionary(config))
    with open_for_writing(config, "audit_sample") as context, ReviewStore(config.path(config.audit.store)) as store:
        return sampling.audit_sample(context, store, request, config_options(args))


def _check_alone(args: argparse.Namespace) -> None:
    """Raise ConfigError for options that do not go with --gold."""
    others = {"--of": "accepted", "--uniform": None, "--near": None, "--whole-products": False}
    others |= {"--model-version": None, "--lowest": None}
    found = {option: getattr(args, option[2:].replace("-", "_")) for option in others}
    if given := [option for option, default in others.items() if found[option] != default]:
        raise ConfigError(
            f"--gold draws products and asks for every value that they lack; {', '.join(given)} does not go with it"
        )


def _ingest_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dry-run", action="store_true", help="print what would follow; nothing is written")


@job(_ingest_arguments)
def audit_ingest(config: Config, args: argparse.Namespace) -> Summary:
    """Take in what reviewers said: retract, correct, estimate; an alarm pauses the attribute (exit 3)."""
    from catalog_enrichment.audit import ingest_verdicts
    from catalog_enrichment.audit.review_store import ReviewStore
    from catalog_enrichment.context import open_for_writing

    with (
        open_for_writing(config, "audit_ingest", args.dry_run) as context,
        ReviewStore(config.path(config.audit.store)) as store,
    ):
        try:
            return ingest_verdicts.audit_ingest(context, store, args.dry_run, config_options(args))
        finally:  # also after an alarm: certificates of other attributes may be confirmed
            if not args.dry_run:
                refresh_pages(config, context.catalog)


def refresh_pages(config: Config, catalog: Catalog) -> None:
    """Write into the pages in `report.path` which certificates audits have confirmed by now; a failure is a warning."""
    from catalog_enrichment.report import statuses

    try:
        statuses.refresh(catalog, config.path(config.report.path))
    except Exception as problem:
        why = failures.recognised(problem) or repr(problem)
        to_stderr(f"warning: the pages do not say yet which certificates are confirmed: {why}")


def _recertify_arguments(parser: argparse.ArgumentParser) -> None:
    repeatable(parser, "--attribute", help="only this paused attribute, also if a person paused it")
    parser.add_argument(
        "--dry-run", action="store_true",
        help="print how many labels there are and how many are needed; nothing is tested",
    )  # fmt: skip


@job(_recertify_arguments)
def recertify_model(config: Config, args: argparse.Namespace) -> Summary:
    """Certify paused attributes again from uniform verdicts drawn since the pause, without training."""
    from catalog_enrichment.audit import recertify_model as again
    from catalog_enrichment.catalog.lake import Catalog
    from catalog_enrichment.context import load_dictionary
    from catalog_enrichment.registry.model_registry import Registry

    request = again.RecertifyRequest(attributes=tuple(args.attribute), dry_run=args.dry_run)
    catalog, dictionary = Catalog.of(config), load_dictionary(config)
    with catalog.writing():
        return again.recertify_model(config, catalog, Registry(config), dictionary, request)


def _switch_arguments(parser: argparse.ArgumentParser) -> None:
    from catalog_enrichment.catalog.switches import Scope, State

    scopes = [scope.value for scope in Scope]
    parser.add_argument("scope", metavar="SCOPE", nargs="?", choices=scopes, help="what it is about")
    parser.add_argument(
        "target", metavar="TARGET", nargs="?", default="",
        help="category path, shop id, value, certificate id or stratum",
    )  # fmt: skip
    parser.add_argument("--attribute", metavar="NAME", default="", help="for the scopes attribute, value and stratum")
    parser.add_argument("--state", choices=[state.value for state in State], help="paused: what is written stands")
    parser.add_argument("--reason", metavar="TEXT", default="", help="why")
    parser.add_argument("--by", metavar="NAME", help="who says so; by default the login name")
    parser.add_argument("--list", action="store_true", help="print what is not on, and stop")


@job(_switch_arguments)
def set_switch(config: Config, args: argparse.Namespace) -> Summary:
    """Pause, switch off or switch on an attribute, category, shop, value, certificate or stratum, at any time."""
    from catalog_enrichment.audit import set_switch as switch_job
    from catalog_enrichment.catalog import switches
    from catalog_enrichment.catalog.lake import Catalog
    from catalog_enrichment.context import load_dictionary
    from catalog_enrichment.operations.set_value import login_name

    catalog = Catalog.of(config)
    if args.list:
        lines = switch_job.in_words(switches.read(catalog).entries)
        to_stderr("\n".join(lines) or "everything is on")
        return {"status": "list", "not_on": lines}
    if not args.scope or not args.state:
        raise ConfigError("name a SCOPE and --state, or --list")
    switch = switches.Switch(
        scope=switches.Scope(args.scope),
        attribute=args.attribute,
        target=args.target,
        state=switches.State(args.state),
        who=login_name() if args.by is None else args.by,
        why=args.reason,
    )
    return switch_job.set_switch(catalog, load_dictionary(config), switch)
