"""What a whole enrichment spends its time on: every product of a file imported, scored, decided and written.

    python tests/benchmarks/enrichment.py --data FILE.parquet                       (a file as for `make compare`)
    python tests/benchmarks/enrichment.py --data FILE.parquet --path bf16 --products 2000      (a try)

The model has the sizes of the recipe `fashion_color` (MiniLM-L6, lcnet_050 at 80 px) and random weights; made-up
certificates let it write about half of its values of three attributes, which no product has yet. Start of the session
and the import are apart. Prints the seconds of every stage; the last line is one JSON object: `score_share`, the share
of the scoring stage in the first run, and `unchanged_share`, the seconds of a second run over those of the first.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from benchmark import arguments, print_json
from inference_version import HEADS, SPEC, register_version
from inference_worlds import read_products

from catalog_enrichment.config.load import load_config
from catalog_enrichment.models.spec import ImageSpec
from catalog_enrichment.precision.certificate import Certificate
from sample_certificate import certificate

SHARES = {"color": 0.14, "material": 0.8, "season": 0.45}
"""Thresholds: with spread logits of so many values, about half of the products have a higher score."""

_SOURCE = """
[source]
format = "parquet"
path = "products.parquet"
[source.mapping]
product_id = "product_id"
title = "title"
category = "category"
image_bytes = "image"
[precision]
provisional_cap = 100000000
"""


def measure(root: Path, data: Path, products: int, path: str) -> dict[str, Any]:
    from catalog_enrichment.context import open_context
    from catalog_enrichment.enrichment import pipeline
    from catalog_enrichment.enrichment.request import Window
    from catalog_enrichment.ingest.job import import_products
    from catalog_enrichment.registry.model_registry import Registry

    rows = pq.read_table(data, columns=["product_id", "title", "category", "image"])
    pq.write_table(rows.slice(0, products) if products else rows, root / "products.parquet", row_group_size=2000)
    spec = replace(SPEC, image=ImageSpec(name="lcnet_050", size=80))
    version = register_version(root, read_products(data, 256), workers=2, spec=spec)
    names = [{"name": n, "cardinality": head.cardinality, "values": list(head.labels)} for n, head in HEADS.items()]
    (root / "attributes.json").write_text(json.dumps({"attributes": names}))
    file = Path(version.config)
    file.write_text(file.read_text() + _SOURCE)
    config = load_config(file, [f'enrich.compute_type="{path}"'])

    started = time.monotonic()
    context = open_context(config, "enrichment")
    session = time.monotonic() - started
    imported = import_products(context)
    resolved = Registry(config).resolve(version="1")
    categories = tuple(sorted(set(map(str, rows.column("category").to_pylist()))))
    writing = tuple(_writes(issued, path, categories) for issued in resolved.certificates)
    model = replace(resolved, certificates=writing)
    first = pipeline.enrich(context, model, Window())
    again = pipeline.enrich(context, model, Window())
    stages = {name: seconds for name, seconds in first["seconds"].items() if name != "total"}
    total = sum(stages.values())
    return {
        "products": first["products"], "compute_type": path, "session_seconds": round(session, 1),
        "import_seconds": imported["seconds"], "stages": stages, "decided": first["attributes"],
        "score_share": round(stages["score"] / total, 3),
        "unchanged_share": round(sum(again["seconds"].values()) / total, 4),
    }  # fmt: skip


def _writes(issued: Certificate, path: str, categories: tuple[str, ...]) -> Certificate:
    """Return a certificate that writes, in place of the abstention ``issued``."""
    same = ("attribute", "modality", "issued_at", "expires_at", "weights_hash", "preprocessing_hash")
    threshold = SHARES[issued.attribute]
    return certificate(
        **{name: getattr(issued, name) for name in same}, compute_type=f"{path}-cpu", categories=categories,
        values=HEADS[issued.attribute].labels, threshold=threshold, suggest_threshold=threshold / 2,
    )  # fmt: skip


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--data", type=Path, required=True, help="Parquet: product_id, title, category, image")
    parser.add_argument("--products", type=int, default=0, help="the first so many; 0: all")
    parser.add_argument("--path", choices=("fp32", "bf16"), default="fp32", help="compute type")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="enrichment-") as folder:
        print_json(measure(Path(folder), args.data.resolve(), args.products, args.path))
    return 0


if __name__ == "__main__":
    sys.exit(main())
