"""The jobs: each function here is the ``main`` of a console script and of ``jobs/NAME.py``.

The files have the arguments of each job and a call into its room; :mod:`catalog_enrichment.cli.command` has what all
jobs share, such as the exit codes.
"""

from catalog_enrichment.cli.audit import audit_ingest, audit_sample, recertify_model, set_switch
from catalog_enrichment.cli.delivery import deliver_values, delivery_status, export_changes
from catalog_enrichment.cli.import_and_enrich import (
    backfill,
    enrich_catalog,
    import_products,
    import_proposals,
    init_project,
)
from catalog_enrichment.cli.models import certify_model, compare_models, promote_model, train_model
from catalog_enrichment.cli.products import delete_products
from catalog_enrichment.cli.review import apply_requests, label_studio, offer_suggestions, serve_audit
from catalog_enrichment.cli.values import (
    compare_runs,
    explain_value,
    export_suggestions,
    export_values,
    list_empty,
    list_runs,
    maintain_catalog,
    rollback_run,
    set_value,
)

__all__ = [
    "apply_requests",
    "audit_ingest",
    "audit_sample",
    "backfill",
    "certify_model",
    "compare_models",
    "compare_runs",
    "delete_products",
    "deliver_values",
    "delivery_status",
    "enrich_catalog",
    "explain_value",
    "export_changes",
    "export_suggestions",
    "export_values",
    "import_products",
    "import_proposals",
    "init_project",
    "label_studio",
    "list_empty",
    "list_runs",
    "maintain_catalog",
    "offer_suggestions",
    "promote_model",
    "recertify_model",
    "rollback_run",
    "serve_audit",
    "set_switch",
    "set_value",
    "train_model",
]
