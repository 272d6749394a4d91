"""The job that deletes products from the catalog."""

from __future__ import annotations

import argparse

from catalog_enrichment.cli.command import Summary, job
from catalog_enrichment.config.schema import Config


def _delete_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("product_ids", metavar="PRODUCT_ID", nargs="*", help="a product to delete")
    parser.add_argument("--ids", metavar="FILE", help="text file with an id per line; - for standard input")
    parser.add_argument("--dry-run", action="store_true", help="print what would be deleted; nothing is changed")


@job(_delete_arguments)
def delete_products(config: Config, args: argparse.Namespace) -> Summary:
    """Delete products and what is stored about them: texts, pictures, predictions. Nothing brings them back."""
    from catalog_enrichment.context import open_for_writing
    from catalog_enrichment.operations import delete_products as deletion

    ids = deletion.read_ids(args.product_ids, args.ids)
    with open_for_writing(config, "delete_products", args.dry_run) as context:
        return deletion.delete_products(context, ids, args.dry_run)
