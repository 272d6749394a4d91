"""The jobs around the review page: serve it, apply the requests made on it, offer suggestions, Label Studio."""

from __future__ import annotations

import argparse
from pathlib import Path

from catalog_enrichment.cli.command import Summary, job, repeatable
from catalog_enrichment.config.schema import Config
from catalog_enrichment.errors import ConfigError
from catalog_enrichment.records import NOTHING_TO_DO


def _store_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--store", metavar="FILE", help="with samples and verdicts; default: audit.store of the config")


def _serve_arguments(parser: argparse.ArgumentParser) -> None:
    _store_argument(parser)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; default %(default)s")
    parser.add_argument("--port", type=int, default=8765, help="default %(default)s; 0: any that is free")
    parser.add_argument(
        "--public-url", metavar="URL", default="", help="where people find it behind a proxy: https://audit.example.org"
    )


@job(_serve_arguments)
def serve_audit(config: Config, args: argparse.Namespace) -> Summary:
    """Serve the page on which people judge samples, answer suggestions and look at products, until it is stopped."""
    from catalog_enrichment.audit.page import serve

    listen = serve.Listen(host=args.host, port=args.port, public_url=args.public_url)
    return serve.serve_audit(config, serve.store_path(config, args.store), listen)


@job(_store_argument)
def apply_requests(config: Config, args: argparse.Namespace) -> Summary:
    """Apply to the catalog what people asked for on the page: corrections, accepted suggestions, undo."""
    from catalog_enrichment.audit import apply_requests as requests
    from catalog_enrichment.audit.page import serve
    from catalog_enrichment.audit.review_store import ReviewStore
    from catalog_enrichment.context import open_for_writing

    with ReviewStore(serve.store_path(config, args.store)) as store:
        if not requests.waiting(store):
            return {"status": NOTHING_TO_DO, "requests": {}}
        with open_for_writing(config, "apply_requests") as context:
            return requests.apply_requests(context, store)


def _offer_arguments(parser: argparse.ArgumentParser) -> None:
    _store_argument(parser)
    repeatable(parser, "--shop", help="only of this shop id")


@job(_offer_arguments)
def offer_suggestions(config: Config, args: argparse.Namespace) -> Summary:
    """Put the open suggestions on the page, for each shop's manager to accept or refuse."""
    from catalog_enrichment.audit import sampling
    from catalog_enrichment.audit.page import serve
    from catalog_enrichment.audit.review_store import ReviewStore
    from catalog_enrichment.context import open_context

    with ReviewStore(serve.store_path(config, args.store)) as store:
        return sampling.offer_suggestions(open_context(config, "offer_suggestions"), store, args.shop)


def _label_studio_arguments(parser: argparse.ArgumentParser) -> None:
    _store_argument(parser)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--export", metavar="FILE", help="write the tasks of --sample there, for its import")
    what.add_argument("--import", dest="results", metavar="FILE", help="add the verdicts of its export (format JSON)")
    parser.add_argument("--sample", metavar="ID", help="the sample to export; default: the newest")


@job(_label_studio_arguments)
def label_studio(config: Config, args: argparse.Namespace) -> Summary:
    """Write a sample as tasks for Label Studio, or add its results to the review store."""
    from catalog_enrichment.audit import label_studio as files
    from catalog_enrichment.audit.page import serve
    from catalog_enrichment.audit.page.site import ScaledPictures
    from catalog_enrichment.audit.review_store import ReviewStore
    from catalog_enrichment.context import load_dictionary

    dictionary = load_dictionary(config)
    with ReviewStore(serve.store_path(config, args.store)) as store:
        if args.results:
            return files.import_results(store, dictionary, Path(args.results))
        newest = [sample.sample_id for sample in store.samples()][:1]
        if not (args.sample or newest):
            raise ConfigError(f"{store.path} has no sample to export: draw it with audit_sample")
        sample_id = args.sample or newest[0]
        return files.export_tasks(store, sample_id, dictionary, ScaledPictures(config.pictures()), Path(args.export))
