"""Start a project, and pull its products into the catalog."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from catalog_enrichment.cli.command import Summary, ended, job, parser_of
from catalog_enrichment.config.schema import Config
from catalog_enrichment.errors import ConfigError


def init_project(argv: Sequence[str] | None = None) -> int:
    """Guess a config and a dictionary from a file of products (CSV, TSV, JSON lines, parquet), and write them."""
    parser = parser_of(init_project)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="where config, dictionary, catalog and models go")
    parser.add_argument("--from", dest="file", type=Path, required=True, metavar="FILE", help="the file with products")
    for option in ("id", "title", "description", "category", "shop", "image"):
        note = "" if option in ("id", "title") else "; '' for none"
        parser.add_argument(f"--{option}", metavar="COLUMN", help=f"the column, instead of a guess{note}")
    parser.add_argument("--attribute", action="append", metavar="COLUMN", help="these, instead of guesses; repeatable")
    parser.add_argument("--min-count", type=int, default=20, help="rows that a value needs (default %(default)s)")
    parser.add_argument("--overwrite", action="store_true", help="replace a config and a dictionary in FOLDER")
    args = parser.parse_args(argv)

    def run(_: set[str]) -> Summary:
        from catalog_enrichment.ingest import guess, project

        columns = {name: getattr(args, option) for option, name in guess.OPTIONS.items()}
        columns = {name: column for name, column in columns.items() if column is not None}
        given = guess.Given(columns=columns, attributes=args.attribute, min_count=args.min_count)
        return project.init_project(
            project.Project(folder=args.folder, file=args.file, given=given, overwrite=args.overwrite)
        )

    return ended("init_project", run)


@job()
def import_products(config: Config, _: argparse.Namespace) -> Summary:
    """Pull products from the source into the catalog's products table; bad rows go to quarantine with a reason."""
    from catalog_enrichment.context import open_for_writing
    from catalog_enrichment.ingest import job as import_job

    if config.source is None:
        raise ConfigError("the config has no [source] section: import_products does not know what to read")
    with open_for_writing(config, "import_products") as context:
        return import_job.import_products(context)
