"""The common part of the jobs' command lines: arguments, config, a call, a JSON line, the exit code.

Errors in the config and the registry are found before Spark starts. Progress goes to stderr; the last line of stdout is
the JSON summary.

Exit codes: 0 ok, 2 bad config or data contract, 3 a gate refused, 4 the surroundings failed (try again), 1 a bug.
"""

from __future__ import annotations

import argparse
import functools
import json
import logging
import os
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from catalog_enrichment import failures, masking, resources
from catalog_enrichment.config.load import load_config
from catalog_enrichment.config.schema import Config
from catalog_enrichment.errors import CatalogEnrichmentError, GateRefused
from catalog_enrichment.monitoring import after_job, logs
from catalog_enrichment.monitoring.stages import to_stderr
from catalog_enrichment.records import RunStatus

if TYPE_CHECKING:
    from catalog_enrichment.monitoring.metrics import Outcome

Summary = dict[str, Any]
JobFunction = Callable[[Config, argparse.Namespace], Summary]

_ONLY_ASKS = ("dry_run", "estimate", "history")
"""Options with which a job changes nothing: how it ends, also a refusal, is in no metrics and no lineage."""


Main = Callable[..., int]
"""A job's entry point: parses ``argv`` (default: the command line), runs the job, prints its summary, and returns the
exit code."""


def job(
    add_arguments: Callable[[argparse.ArgumentParser], None] | None = None,
    settings: Mapping[str, str] | None = None,
) -> Callable[[JobFunction], Main]:
    """Decorate a function (config, arguments) -> summary: makes the job's ``main`` of it.

    The function's name is the job's name and its docstring the text of --help. ``settings`` maps arguments to the
    config keys that they set.
    """

    def decorate(function: JobFunction) -> Main:
        @functools.wraps(function)
        def main(argv: Sequence[str] | None = None) -> int:
            return _run(function, argv, add_arguments, settings or {})

        return main

    return decorate


def _run(
    function: JobFunction,
    argv: Sequence[str] | None,
    add_arguments: Callable[[argparse.ArgumentParser], None] | None,
    settings: Mapping[str, str],
) -> int:
    resources.sleep_while_waiting()
    parser = parser_of(function)
    parser.add_argument(
        "--config", required=True, metavar="FILE", help="TOML file, or config:NAME.toml for a shipped file"
    )
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="override; repeatable")
    if add_arguments:
        add_arguments(parser)
    args = parser.parse_args(argv)
    values = {key: getattr(args, argument) for argument, key in settings.items()}
    overrides = [f"{key}={_toml(value)}" for key, value in values.items() if value is not None]

    configs: list[Config] = []

    def run(secrets: set[str]) -> Summary:
        config = load_config(args.config, args.set + overrides)
        secrets |= config.secrets()
        logs.start(config.logs, function.__name__)
        configs.append(config)
        return function(config, args)

    def report(outcome: Outcome) -> None:
        for config in configs:  # empty if the config could not be loaded
            after_job.report(config, outcome)

    only_asked = any(getattr(args, option, False) for option in _ONLY_ASKS)
    return ended(function.__name__, run, None if only_asked else report)


def _toml(value: object) -> str:
    """Return a text, number or list of texts as TOML: JSON without escaped surrogates, and with DEL escaped."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def parser_of(function: Callable[..., Summary | int]) -> argparse.ArgumentParser:
    epilog = (__doc__ or "").rsplit("\n\n", 1)[-1]
    return argparse.ArgumentParser(function.__name__, description=function.__doc__, epilog=epilog)


def repeatable(parser: argparse.ArgumentParser, *names: str, help: str, **settings: Any) -> None:
    """Add an option that may be given several times; its value is a list, empty by default."""
    parser.add_argument(*names, action="append", default=[], help=f"{help}; repeatable", **settings)


def listed(rows: list[dict[str, Any]], key: str, as_table: Callable[..., str], as_json: bool) -> Summary:
    """Print the rows as a table, or return them in the summary under ``key``."""
    if as_json:
        return {"status": RunStatus.SUCCEEDED, key: rows}
    to_stderr(as_table(rows))
    return {"status": RunStatus.SUCCEEDED, "listed": len(rows)}


def config_options(args: argparse.Namespace) -> list[str]:
    """Return the options that give another job the same config."""
    return ["--config", args.config, *(word for override in args.set for word in ("--set", override))]


def non_negative(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"must not be negative: {number}")
    return number


def ended(name: str, run: Callable[[set[str]], Summary], report: Callable[[Outcome], None] | None = None) -> int:
    """Run the job, ``report`` how it ended (metrics, lineage), print its summary, and return the exit code."""
    secrets = set(masking.secrets_in(dict(os.environ)))
    started_at = time.time()
    with masking.masked_output(secrets):
        code, summary = _outcome(name, run, secrets)
        if report:
            from catalog_enrichment.monitoring.metrics import Outcome

            report(Outcome(name, code, summary, started_at, time.time()))
        logs.stop()
    summary = masking.masked_content(summary | {"exit_code": code}, secrets)
    print(json.dumps(summary, default=lambda value: masking.masked(str(value), secrets)), flush=True)
    return code


def _outcome(name: str, run: Callable[[set[str]], Summary], secrets: set[str]) -> tuple[int, Summary]:
    """Run the job, which adds the config's ``secrets`` as soon as they are known; returns exit code and summary."""
    try:
        return 0, {"job": name} | run(secrets)
    except CatalogEnrichmentError as problem:
        return problem.exit_code, _error(name, problem)
    except Exception as problem:
        if known := failures.recognised(problem):
            return known.exit_code, _error(name, known)
        to_stderr(traceback.format_exc(), logging.ERROR)
        message = masking.masked(str(problem))[:2000]  # in this order: a cut secret would not be recognised
        return 1, {"job": name, "status": "bug", "error": type(problem).__name__, "message": message}


def _error(name: str, problem: CatalogEnrichmentError) -> Summary:
    """Print what is wrong on stderr; returns the job's summary."""
    error = type(problem).__name__
    to_stderr(f"{name}: {error}: {problem}", logging.ERROR)
    summary = {"job": name, "status": "error", "error": error, "message": str(problem)}
    return summary | {"status": "refused"} | problem.summary if isinstance(problem, GateRefused) else summary
