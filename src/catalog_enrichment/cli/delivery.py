"""The jobs that hand values on. They neither start Spark nor take the catalog's write lock."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from catalog_enrichment.cli.command import Summary, job, listed
from catalog_enrichment.config.schema import Config
from catalog_enrichment.errors import ConfigError

if TYPE_CHECKING:
    from catalog_enrichment.catalog.lake import Catalog


def _changes_arguments(parser: argparse.ArgumentParser) -> None:
    asked = parser.add_mutually_exclusive_group(required=True)
    asked.add_argument("--since", metavar="POSITION", help="what changed after this position; 'start': everything")
    asked.add_argument("--consumer", metavar="NAME", help="what changed after NAME's position, which is then moved")
    asked.add_argument("--run", "--run-id", dest="run", metavar="RUN_ID", help="what this run or backfill changed")
    parser.add_argument(
        "--out", "--output", dest="output", metavar="PATH", required=True,
        help="file to write, or folder; a consumer's files are written into a folder, named by their positions",
    )  # fmt: skip
    parser.add_argument(
        "--format", choices=("jsonl", "csv", "parquet"), help="default: that of PATH's suffix, else jsonl"
    )
    parser.add_argument("--net", action="store_true", help="a change per product and attribute, not per commit")
    parser.add_argument("--overwrite", action="store_true", help="replace the file if it is there")


@job(_changes_arguments)
def export_changes(config: Config, args: argparse.Namespace) -> Summary:
    """Write what changed for readers since a position or by a run, in commit order, with the next position."""
    from catalog_enrichment.delivery import export_changes as changes

    request = changes.ChangesRequest(
        output=args.output,
        kind=args.format,
        since=args.since,
        consumer=args.consumer,
        run_id=args.run,
        net=args.net,
        overwrite=args.overwrite,
    )
    positions = changes.PositionFiles(config.path(config.delivery.positions))
    return changes.export_changes(_catalog(config), positions, request)


def _deliver_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--migrate", action="store_true", help="make or change the tables of the sink, and stop")
    parser.add_argument("--snapshot", action="store_true", help="write everything again, and delete what is not there")
    parser.add_argument("--dry-run", action="store_true", help="count what would be delivered; nothing is written")


@job(_deliver_arguments)
def deliver_values(config: Config, args: argparse.Namespace) -> Summary:
    """Apply what changed for readers to the database or Iceberg table of [delivery], every commit exactly once."""
    from catalog_enrichment.delivery import deliver

    if args.migrate:
        if args.snapshot or args.dry_run:
            raise ConfigError("--migrate delivers nothing: give it without --snapshot and --dry-run")
        return deliver.migrate(config.delivery)
    return deliver.deliver_values(_catalog(config), config.delivery, args.snapshot, args.dry_run)


def _status_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="put the consumers into the JSON summary; no table")


@job(_status_arguments)
def delivery_status(config: Config, args: argparse.Namespace) -> Summary:
    """List the consumers of deliver_values and export_changes: how far each is, and how many runs it has not had."""
    from catalog_enrichment.delivery import status
    from catalog_enrichment.delivery.export_changes import PositionFiles

    positions = PositionFiles(config.path(config.delivery.positions))
    found = status.delivery_status(_catalog(config), config.delivery, positions)
    return listed(found, "consumers", status.as_table, args.json)


def _catalog(config: Config) -> Catalog:
    from catalog_enrichment.catalog.lake import Catalog

    return Catalog.of(config)
