"""A model version as a folder: it loads without network access and without unpickling (I8).

::

    model.safetensors          weights
    model.json                 recipe name, spec, heads, calibration temperatures, preprocessing version
    text/tokenizer/            as transformers saves it; second_text/ likewise, where there is a second text encoder
    text/encoder/config.json   as transformers saves it; absent for a model without text
    extraction/                the extractor of the attributes without a closed list; absent without such attributes
    title_words.safetensors    classifiers of the title's words, their terms in title_words.json; absent without such
    has_value.safetensors      heads that tell products with a value from others; absent without such heads
    certificates.json          the certificates; added after certification
    drift.json                 scores by stratum at certification, for drift checks; added after certification
    SHA256SUMS                 checksums of all other files (readable by `sha256sum -c`)

Several models that vote (Bi et al. 2020, section 3.4) are a folder as well. It has a folder with weights and model.json
for each of them, `members/00`, `members/01` and so on; its own model.json has the name, the heads and the number of
members; the other files are those of the vote.

A version of attributes without closed lists alone has an extractor and no network: no weights beside it, and no heads.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from catalog_enrichment.config import strict
from catalog_enrichment.errors import ConfigError, ModelContractError
from catalog_enrichment.inputs.text import TextTokenizer
from catalog_enrichment.models import has_value, preprocess, self_contained, title_words, version_files
from catalog_enrichment.models.fusion import fusion_class
from catalog_enrichment.models.image_encoders import build_image_encoder
from catalog_enrichment.models.network import MultiModalNet, assemble
from catalog_enrichment.models.pretrained import UNUSABLE, error_summary, pretrained_config
from catalog_enrichment.models.spec import Head, ModelSpec, Recipe
from catalog_enrichment.models.text_encoders import text_encoder_from_config
from catalog_enrichment.records import ANY_VALUE, Cardinality, stable_hash
from catalog_enrichment.values.kinds import OpenRule

WEIGHTS = "model.safetensors"
MODEL = "model.json"
TOKENIZER = "tokenizer"
ENCODER = "encoder"
MEMBERS = "members"
"""The folder of the models that vote."""
EXTRACTION, RULES = "extraction", "extraction.json"
"""The folder of the extractor (:mod:`catalog_enrichment.models.extraction`)."""

_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Artifact:
    """A model version in memory."""

    net: MultiModalNet
    tokenizers: dict[str, TextTokenizer]
    """Text encoder -> its tokenizer."""
    spec: ModelSpec
    temperatures: dict[str, float]
    """Attribute -> divisor of its logits."""


def save(
    directory: Path,
    net: MultiModalNet,
    tokenizers: Mapping[str, TextTokenizer],
    recipe: Recipe,
    temperatures: Mapping[str, float],
) -> None:
    """Write the model version, without certificates, into ``directory``, which must be new or empty.

    ``recipe.model`` must be the spec that ``net`` was built from. Raises ModelContractError if the directory is not
    empty, or an attribute has no positive temperature.
    """
    if directory.exists() and any(directory.iterdir()):
        raise ModelContractError(f"{directory} is not empty. A model version needs a new or empty folder")
    if set(temperatures) != set(net.heads) or not all(0 < value < float("inf") for value in temperatures.values()):
        raise ModelContractError(f"every head needs a positive temperature: heads {list(net.heads)}, {temperatures}")
    directory.mkdir(parents=True, exist_ok=True)
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in net.state_dict().items()}
    save_file(weights, directory / WEIGHTS)
    for name, tokenizer in tokenizers.items():
        tokenizer.save(directory / name / TOKENIZER)
    for name, encoder in net.text_encoders().items():
        encoder.config.save_pretrained(str(directory / name / ENCODER))
    content = {
        "format": _FORMAT,
        "recipe": recipe.name,
        "spec": _portable(asdict(recipe.model)),
        "heads": {name: _plain(head) for name, head in net.heads.items()},
        "calibration": dict(temperatures),
        "preprocessing": preprocess.VERSION,
    }
    version_files.write(directory, MODEL, content)


def save_ensemble(directory: Path, name: str, members: Sequence[Path]) -> None:
    """Complete a folder of models that vote; :func:`save` wrote the ``members``, folders in ``directory / MEMBERS``."""
    labels = {attribute: _plain(head) for attribute, head in heads(members[0]).items()}
    version_files.write(directory, MODEL, {"ensemble": name, "members": len(members), "heads": labels})


def add_extractor(directory: Path, attributes: Sequence[str]) -> None:
    """Complete a folder that has an extractor, in ``directory / EXTRACTION``, of ``attributes``."""
    file = directory / MODEL
    content = json.loads(file.read_text()) if file.is_file() else {"heads": {}}
    version_files.write(directory, MODEL, content | {"open": list(attributes)})


def has_network(directory: Path) -> bool:
    """Return whether the version has a network or several, beside an extractor or without one."""
    return bool(json.loads((directory / MODEL).read_text())["heads"])


def load(directory: Path) -> Artifact:
    """Verify and read a model version; the network is in eval mode, on the CPU. Raises ModelContractError."""
    verify(directory)
    try:
        with self_contained.watched(directory):
            return _load(directory)
    except ConfigError as problem:  # the files are undamaged, so the remedy is in the message
        raise ModelContractError(f"{directory} cannot be loaded: {problem}") from problem
    except UNUSABLE as problem:
        raise ModelContractError(
            f"{directory} cannot be loaded: {error_summary(problem)} {version_files.REMEDY}"
        ) from problem


def _load(directory: Path) -> Artifact:
    content = json.loads((directory / MODEL).read_text())
    if (content["format"], content["preprocessing"]) != (_FORMAT, preprocess.VERSION):
        raise ModelContractError(
            f"{directory} has format {content['format']} and preprocessing {content['preprocessing']}; this release "
            f"reads {_FORMAT} and {preprocess.VERSION}. Use the release that trained it, or train a new version"
        )
    spec = strict.build(ModelSpec, content["spec"], where=MODEL)
    for name in spec.texts:
        self_contained.check_configs(directory / name)
    net = _empty_network(spec, network_heads(content), directory)
    net.load_state_dict(load_file(directory / WEIGHTS))
    tokenizers = {name: TextTokenizer.load(directory / name / TOKENIZER) for name in spec.texts}
    return Artifact(net.eval(), tokenizers, spec, content["calibration"])


def verify(directory: Path) -> None:
    """Check every file against its checksum (:func:`version_files.verify`). Raises ModelContractError."""
    extractor_alone = (directory / EXTRACTION).is_dir() and not (directory / WEIGHTS).is_file()
    without_weights = extractor_alone or (directory / MEMBERS).is_dir()
    version_files.verify(directory, (MODEL,) if without_weights else (WEIGHTS, MODEL))


def weights_hash(directory: Path) -> str:
    """Return the hash of weights, experts of words, has-value heads, extractor and model.json, which determine the
    scores.

    Certification does not change it.
    """
    beside = [directory / name for name in (has_value.FILE, *title_words.FILES)]
    heads = [version_files.sha256(file) for file in beside if file.is_file()]
    heads += [version_files.sha256(file) for file in sorted((directory / EXTRACTION).rglob("*")) if file.is_file()]
    if (directory / MEMBERS).is_dir():
        members = [weights_hash(member) for member in sorted((directory / MEMBERS).iterdir())]
        return stable_hash(version_files.sha256(directory / MODEL), members, *heads)
    files = [file for file in (directory / WEIGHTS, directory / MODEL) if file.is_file()]
    return stable_hash(*map(version_files.sha256, files), *heads)


def preprocessing_hash(directory: Path) -> str:
    """Return the hash of the preprocessing: its version, and every tokenizer's files."""
    tokenizers = [file for file in version_files.files(directory) if TOKENIZER in file.relative_to(directory).parts]
    return stable_hash(
        preprocess.VERSION, {str(file.relative_to(directory)): version_files.sha256(file) for file in tokenizers}
    )


def heads(directory: Path) -> dict[str, Head]:
    """Return attribute -> its cardinality and labels; those of the extractor last."""
    content = json.loads((directory / MODEL).read_text())
    known = network_heads(content)
    if found := content.get("open"):
        rules = json.loads((directory / EXTRACTION / RULES).read_text())["attributes"]
        known |= {name: Head(Cardinality.ONE, (ANY_VALUE,), OpenRule.of_plain(rules[name])) for name in found}
    return known


def network_heads(content: Mapping[str, Any]) -> dict[str, Head]:
    """Return attribute -> its cardinality and labels, of the heads in the ``content`` of model.json."""
    return {
        name: Head(Cardinality(head["cardinality"]), tuple(head["labels"])) for name, head in content["heads"].items()
    }


def _plain(head: Head) -> dict[str, Any]:
    return {"cardinality": head.cardinality, "labels": head.labels}


def write_title_words(directory: Path, words: title_words.TitleWords) -> None:
    """Write the experts of titles' words into the model version."""
    words.save(directory)
    version_files.write_sums(directory)


def write_has_value(directory: Path, heads: has_value.Heads) -> None:
    """Write the has-value heads into the model version."""
    has_value.save(directory, heads)
    version_files.write_sums(directory)


def _portable(spec: dict[str, Any]) -> dict[str, Any]:
    """Return the spec without paths of the machine that trained the model; the artifact has the files themselves."""
    for name in ("text", "second_text"):
        if spec[name] and spec[name]["name"].startswith((".", "/", "~")):
            spec[name]["name"] = Path(spec[name]["name"]).name
    spec["image"]["weights"] = Path(spec["image"]["weights"]).name
    return spec


def _empty_network(spec: ModelSpec, heads_by_attribute: dict[str, Head], directory: Path) -> MultiModalNet:
    """Return the network with random weights, built from the files of the folder only."""
    kind = fusion_class(spec.fusion.kind)
    texts = {
        name: text_encoder_from_config(pretrained_config(str(directory / name / ENCODER), local=True), text)
        for name, text in spec.texts.items()
        if kind.uses_text
    }
    image = build_image_encoder(spec.image, pretrained=False) if kind.uses_image else None
    return assemble(spec, heads_by_attribute, texts, image)
