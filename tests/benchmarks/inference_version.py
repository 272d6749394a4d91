"""The model version that all contenders score with: random weights, of the sizes that a catalog would use on CPUs.

A BERT as large as MiniLM-L6, mobilenetv3_small_100 at 224 px, modality attention, three attributes. Nothing is
downloaded. Batch statistics and temperatures are fitted to the products, so that pictures matter and probabilities
spread as those of a trained model do: of near-constant outputs every contender would give the same.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from inference_job import Version
from inference_model import PlainModel
from inference_worlds import Product

from catalog_enrichment.config.load import load_config
from catalog_enrichment.models.spec import BertSize, FitSpec, Head, ImageSpec, ModelSpec, Recipe, TextSpec
from catalog_enrichment.records import Cardinality, Modality
from sample_certificate import SCORED_BY, abstention

if TYPE_CHECKING:
    from catalog_enrichment.models.network import ModelInputs, MultiModalNet
    from catalog_enrichment.precision.certificate import Certificate

SPEC = ModelSpec(
    text=TextSpec(
        bert=BertSize(hidden=384, layers=6, heads=12, intermediate=1536, vocab_size=30_000),
        pooling="mean",
        max_length=48,
    ),
    image=ImageSpec(name="mobilenetv3_small_100", size=224),
)
HEADS = {
    "color": Head(Cardinality.ONE, tuple(f"colour {number}" for number in range(20))),
    "material": Head(Cardinality.MANY, ("Cotton", "Denim", "Leather", "Linen", "Silk", "Wool")),
    "season": Head(Cardinality.ONE, ("Spring", "Summer", "Autumn", "Winter")),
}
FITTED_TO = 64
"""Products that statistics and temperatures are fitted to."""
LOGIT_SPREAD = 1.0
"""Standard deviation of an attribute's logits over those products and its values, after division by the temperature."""
_CONFIG = """
[catalog]
path = "catalog"
dictionary = "attributes.json"
[mlflow]
tracking_uri = "sqlite:///mlflow.db"
artifact_path = "mlartifacts"
[spark]
master = "local[{workers}]"
"""


def register_version(root: Path, products: Sequence[Product], workers: int, spec: ModelSpec = SPEC) -> Version:
    """Write a config into ``root``, make the model for ``products`` and register it in a store there."""
    from catalog_enrichment.models import artifact, version_files
    from catalog_enrichment.registry.model_registry import Registry
    from catalog_enrichment.registry.trained_model import TrainedModel

    file = root / "config.toml"
    file.write_text(_CONFIG.format(workers=workers))
    config = load_config(file)
    folder = saved_model(root / "model", products, spec)
    hashes = {
        "weights_hash": artifact.weights_hash(folder),
        "preprocessing_hash": artifact.preprocessing_hash(folder),
    }
    certificates = [_certificate(name, path, hashes) for name in HEADS for path in Modality]
    version_files.write_certificates(folder, [certificate.to_dict() for certificate in certificates])
    trained = TrainedModel(
        artifact=folder, certificates=certificates, metrics={}, params={}, tables={}, curves={}, history=[],
        warnings=[], held_out=[], lineage={"label_set_hash": "none", "labelled": 0}, seconds={},
    )  # fmt: skip
    registry = Registry(config)
    registered = registry.register(trained)
    resolved = registry.resolve(version=registered.version)
    return Version(
        artifact=str(resolved.artifact), artifact_hash=resolved.artifact_hash,
        uri=f"models:/{registered.name}/{registered.version}", tracking_uri=f"sqlite:///{root / 'mlflow.db'}",
        config=str(file),
    )  # fmt: skip


def saved_model(folder: Path, products: Sequence[Product], spec: ModelSpec) -> Path:
    """Make the model for ``products`` and save it in ``folder``, which it returns."""
    import torch

    from catalog_enrichment.inputs.text import TextTokenizer, clean_text
    from catalog_enrichment.models import artifact
    from catalog_enrichment.models.network import build_network

    texts = [clean_text(text, spec.max_chars) for product in products for text in (product.title, product.description)]
    tokenizers = {"text": TextTokenizer.train(texts, 30_000)}
    torch.manual_seed(0)
    net = build_network(spec, HEADS, tokenizers)
    recipe = Recipe(name="random", model=spec, fit=FitSpec(epochs=1))
    unfitted = folder.with_name(f"{folder.name}-unfitted")
    artifact.save(unfitted, net, tokenizers, recipe, dict.fromkeys(HEADS, 1.0))
    rows = [(product.title, product.description, product.image) for product in products[:FITTED_TO]]
    titles, descriptions, images = zip(*rows, strict=True)
    inputs = PlainModel(unfitted).inputs(titles, descriptions, images)
    artifact.save(folder, net, tokenizers, recipe, _fitted_temperatures(net, inputs))
    return folder


def _fitted_temperatures(net: MultiModalNet, inputs: ModelInputs) -> dict[str, float]:
    """Fit the batch statistics of ``net`` in place; returns per attribute the temperature for LOGIT_SPREAD."""
    import torch
    from torch import nn

    assert net.image is not None
    layers = [layer for layer in net.image.modules() if isinstance(layer, nn.BatchNorm2d)]
    with torch.no_grad():
        momenta = [layer.momentum for layer in layers]
        for layer in layers:
            layer.momentum = None  # the mean over the passes
            layer.reset_running_stats()
        net.image.train()
        net.image(inputs.pixels)
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
        logits = net.eval()(inputs).logits
    return {name: float(found.std()) / LOGIT_SPREAD for name, found in logits.items()}


def _certificate(name: str, path: Modality, hashes: dict[str, str]) -> Certificate:
    issued = datetime.now(UTC)
    return abstention(
        attribute=name, modality=path, values=HEADS[name].labels, why_abstains="random weights",
        **asdict(replace(SCORED_BY, **hashes)), issued_at=issued, expires_at=issued + timedelta(days=90),
        suggest_threshold=None,
    )  # fmt: skip
