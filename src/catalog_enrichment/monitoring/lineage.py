"""OpenLineage run events (spec 2-0-2): which tables a run read and wrote, with which model, and how it ended.

An attempt of a job has a single event, when it has ended, as OpenLineage allows for batches: COMPLETE or FAIL.
"""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from catalog_enrichment import __version__
from catalog_enrichment.records import RunStatus

if TYPE_CHECKING:
    from catalog_enrichment.config.schema import Config
    from catalog_enrichment.monitoring.metrics import Outcome

_PRODUCER = f"https://pypi.org/project/catalog-enrichment/{__version__}"
_EVENT = "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent"
_ERROR_FACET = "https://openlineage.io/spec/facets/1-0-1/ErrorMessageRunFacet.json#/$defs/ErrorMessageRunFacet"
_CUSTOM_FACET = "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunFacet"

_DECIDED_BY = (
    *("products", "attribute_values", "predictions", "switches", "audits", "verdicts", "confirmations", "renames"),
    "proposals",
)
_DECIDES = ("predictions", "attribute_values", "current_values", "quarantine", "switches", "renames")
_VALUES = ("attribute_values", "current_values")

TABLES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "import_products": (
        ("attribute_values", "predictions", "renames"),
        ("products", "self_derived", "quarantine", "renames", *_VALUES),
    ),
    "import_proposals": (("products", "proposals"), ("proposals",)),
    "train_model": (("products", "self_derived", "audits", "verdicts", "label_uses"), ("label_uses",)),
    "compare_models": (("products", "self_derived", "label_uses"), ()),
    "enrich_catalog": (_DECIDED_BY, _DECIDES),
    "backfill": (_DECIDED_BY, _DECIDES),
    "rollback_run": (("attribute_values", "renames"), (*_VALUES, "switches", "renames")),
    "set_value": (("products", "attribute_values"), _VALUES),
    "delete_products": (
        ("products", "predictions", "quarantine", "self_derived", "proposals", "attribute_values"),
        ("products", "predictions", "quarantine", "self_derived", "proposals", *_VALUES),
    ),
    "audit_sample": (("products", *_VALUES, "predictions", "audits", "verdicts"), ("audits",)),
    "audit_ingest": (
        ("products", "attribute_values", "audits", "verdicts", "switches"),
        ("verdicts", *_VALUES, "switches", "confirmations"),
    ),
    "recertify_model": (("audits", "verdicts", "switches", "label_uses"), ("label_uses", "switches")),
    "certify_model": (
        ("audits", "verdicts", "predictions", "products", "current_values", "self_derived", "proposals", "label_uses"),
        ("label_uses",),
    ),
    "set_switch": (("products", "attribute_values", "switches"), ("switches",)),
    "apply_requests": (("products", *_VALUES), _VALUES),
    "offer_suggestions": (("predictions", "products"), ()),
    "export_values": (("current_values", "products"), ()),
    "export_suggestions": (("predictions", "products"), ()),
    "export_changes": (("current_values",), ()),
    "deliver_values": (("current_values",), ()),
}
"""Job -> tables of the catalog that it reads, and that it writes. The other jobs have no tables in their events.

The table `runs` is in no event: its rows say what the events say.
"""


def write(config: Config, outcome: Outcome) -> None:
    """Append the event to `lineage.file`. Raises OSError if it cannot be written."""
    if config.lineage.file:
        file = config.path(config.lineage.file)
        file.parent.mkdir(parents=True, exist_ok=True)
        line = json.dumps(event(config, outcome)) + "\n"
        with file.open("a") as lines:  # a single write: the lines of two jobs that end together do not mix
            lines.write(line)


def post(config: Config, outcome: Outcome) -> None:
    """Post the event to `lineage.url`. Raises urllib3's HTTPError, or OSError for a refusal."""
    if not config.lineage.url:
        return
    import urllib3

    answer = urllib3.PoolManager().request(
        "POST", config.lineage.url, json=event(config, outcome), timeout=config.lineage.seconds, retries=2
    )
    if answer.status >= 300:
        raise OSError(f"lineage.url answered {answer.status}: {answer.data[:200].decode(errors='replace')}")


def event(config: Config, outcome: Outcome) -> dict[str, Any]:
    """Return the run event.

    Its run id is the UUID of this attempt; ``catalogEnrichment.runId`` is the catalog's run id.
    """
    summary = outcome.summary
    facets: dict[str, Any] = {
        "catalogEnrichment": _facet(_CUSTOM_FACET)
        | {
            "runId": summary.get("run_id"),
            "status": summary.get("status"),
            "exitCode": outcome.exit_code,
            "modelName": outcome.run.get("model_name"),
            "modelVersion": summary.get("model_version"),
            "startedAt": datetime.fromtimestamp(outcome.started_at, UTC).isoformat(),
        }
    }
    if outcome.exit_code:
        facets["errorMessage"] = _facet(_ERROR_FACET) | {
            "message": f"{summary.get('error')}: {summary.get('message')}",
            "programmingLanguage": "python",
        }
    read, written = TABLES.get(outcome.job, ((), ()))
    # the same attempt has the same id: an event that is sent twice counts once
    attempt_id = uuid.uuid5(uuid.NAMESPACE_URL, f"{outcome.job} {summary.get('run_id')} {outcome.started_at}")
    return {
        "eventType": "FAIL" if outcome.exit_code else "COMPLETE",
        "eventTime": datetime.fromtimestamp(outcome.finished_at, UTC).isoformat(),
        "run": {"runId": str(attempt_id), "facets": facets},
        "job": {"namespace": config.lineage.namespace, "name": outcome.job},
        "inputs": [*_sources(config, outcome.job), *(_table(config, name) for name in read)],
        "outputs": [_table(config, name) for name in written] if _wrote(outcome) else [],
        "producer": _PRODUCER,
        "schemaURL": _EVENT,
    }


def _wrote(outcome: Outcome) -> bool:
    """Return whether the job wrote something, also if a gate (an alarm, drift) refused it after the write."""
    status = outcome.summary.get("status") if outcome.exit_code == 0 else outcome.run.get("status")
    return status == RunStatus.SUCCEEDED


def _facet(schema: str) -> dict[str, str]:
    return {"_producer": _PRODUCER, "_schemaURL": schema}


def _sources(config: Config, job: str) -> list[dict[str, str]]:
    """Return the files that an import reads, by the config's masked path."""
    section = {"import_products": "source", "import_proposals": "proposals"}.get(job, "")
    content = config.without_secrets().get(section) or {}
    if not content.get("path"):
        return []
    path = str(content["path"])
    return [_dataset(path if "://" in path else config.path(path).as_uri())]


def _table(config: Config, name: str) -> dict[str, str]:
    path = config.catalog.path
    return _dataset(f"{path.rstrip('/')}/{name}" if "://" in path else (config.path(path) / name).as_uri())


def _dataset(uri: str) -> dict[str, str]:
    """Name a dataset as OpenLineage does: by its storage (``file``, ``s3://bucket``) and its path in it."""
    scheme, _, rest = uri.partition("://")
    storage, slash, path = rest.partition("/")
    if not storage:
        return {"namespace": scheme, "name": slash + path}
    return {"namespace": f"{scheme}://{storage}", "name": path}
