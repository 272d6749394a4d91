"""Scores products with a registered model version, and tells which values its certificates allow to be written.

    python examples/score_products.py --config shop/config.toml products.csv            # the champion
    python examples/score_products.py --config shop/config.toml products.csv --version 3

The CSV file needs a column `title` and may have `description`; pictures are left out, so the certificates are those of
products without a usable picture. Prints one line per product and attribute. Nothing is written: the job enrich_catalog
also looks at merchants' and people's values, categories, languages and the dates of certificates.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from catalog_enrichment.config.load import load_config
from catalog_enrichment.inputs.product_batch import ProductBatch
from catalog_enrichment.models.predictor import load_predictor
from catalog_enrichment.records import Modality
from catalog_enrichment.registry.model_registry import Registry


def score(config_file: Path, products: pd.DataFrame, version: str | None = None) -> pd.DataFrame:
    """One row per product and attribute: title, attribute, value, score (0..1), and ``writable``.

    ``products``: columns title and, if there is one, description. ``version``: None is the champion. Raises
    RegistryError if there is no such version.
    """
    model = Registry(load_config(config_file)).resolve(version=version)
    predictor = load_predictor(model.artifact)
    # a certificate holds for the number type and the kind of device that it was issued for, say fp32-cpu
    certificates = {
        one.attribute: one
        for one in model.certificates
        if one.modality is Modality.TEXT_ONLY and one.compute_type == predictor.compute_type
    }
    titles = products["title"].fillna("").tolist()
    descriptions = products.get("description", pd.Series([""] * len(titles))).fillna("").tolist()
    probabilities = predictor.predict(ProductBatch(titles, descriptions, [None] * len(titles))).probabilities
    rows = []
    for attribute, scores in probabilities.items():  # (B, V)
        labels, certificate = model.heads[attribute].labels, certificates.get(attribute)
        for title, of_product in zip(titles, scores, strict=True):
            value, best = labels[of_product.argmax()], float(of_product.max())
            threshold = certificate.threshold if certificate and value in certificate.pool else None
            rows.append((title, attribute, value, round(best, 4), threshold is not None and best >= threshold))
    return pd.DataFrame(rows, columns=["title", "attribute", "value", "score", "writable"])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("file", type=Path, help="CSV file with products")
    parser.add_argument("--config", type=Path, required=True, metavar="FILE")
    parser.add_argument("--version", help="a model version, instead of the champion")
    args = parser.parse_args()
    print(score(args.config, pd.read_csv(args.file), args.version).to_string(index=False))


if __name__ == "__main__":
    main()
