"""The families of text encoders that the papers use, proven with tiny vocabularies and real tokenizers."""

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
from transformers import AutoConfig, AutoModel, CamembertTokenizer

from catalog_enrichment.errors import ConfigError, ModelContractError
from catalog_enrichment.inputs.product_batch import ProductBatch
from catalog_enrichment.inputs.tokenizer import TextTokenizer
from catalog_enrichment.models import artifact
from catalog_enrichment.models.encoders import (
    TextEncoder,
    Tokens,
    build_text_encoder,
    build_tokenizer,
    text_encoder_from_config,
)
from catalog_enrichment.models.network import build_network, parameter_groups
from catalog_enrichment.models.preprocess import Preprocessor
from catalog_enrichment.models.spec import BertSize, FitSpec, TextSpec

from .conftest import HEADS, TEMPERATURES
from .families import DESCRIPTIONS, FAMILIES, HIDDEN, LENGTH, LETTERS, POSITIONS, TITLES, reading


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("families")
    return {family: build(root / family) for family, build in FAMILIES.items()}


@pytest.fixture
def load(folders: dict[str, Path]) -> Callable[..., tuple[TextTokenizer, TextEncoder]]:
    def loaded(family: str, **changes: Any) -> tuple[TextTokenizer, TextEncoder]:
        spec = TextSpec(name=str(folders[family]), max_length=LENGTH)
        spec = replace(spec, **changes)
        tokenizer = build_tokenizer(spec, [])
        return tokenizer, build_text_encoder(spec, len(tokenizer)).eval()

    return loaded


def texts_of(family: str) -> tuple[list[str], list[str]]:
    language = "japanese" if family == "japanese" else "french"
    return TITLES[language], DESCRIPTIONS[language]


def tokens_of(columns: dict[str, np.ndarray]) -> Tokens:
    tensors = {name: torch.from_numpy(column) for name, column in columns.items()}
    present = torch.ones(len(tensors["input_ids"]), dtype=torch.bool)
    return Tokens(tensors["input_ids"], tensors["attention_mask"], tensors.get("token_type_ids"), present)


def rows(columns: np.ndarray, mask: np.ndarray) -> list[list[int]]:
    return [row[: int(encoded.sum())].tolist() for row, encoded in zip(columns, mask, strict=True)]


def test_japanese_is_split_into_words_and_token_types_separate_title_and_description(load: Any) -> None:
    tokenizer, encoder = load("japanese")
    columns = tokenizer.encode(["赤い綿のシャツ", "青い"], ["ウールのセーター", ""], LENGTH)
    # [CLS] 赤い 綿 の シャツ [SEP] ウール の セーター [SEP], by the vocabulary's numbers
    assert rows(columns["input_ids"], columns["attention_mask"]) == [[2, 5, 6, 7, 8, 3, 10, 7, 9, 3], [2, 11, 3]]
    assert columns["token_type_ids"].tolist() == [[0] * 6 + [1] * 4, [0] * 10]
    with torch.inference_mode():
        message = encoder(tokens_of(columns)).vector
        untold = encoder(tokens_of(columns | {"token_type_ids": 0 * columns["token_type_ids"]})).vector
    assert not torch.allclose(message[0], untold[0], atol=1e-3)
    assert torch.equal(message[1], untold[1])


def test_camembert_has_its_own_special_tokens_around_a_pair(load: Any) -> None:
    tokenizer, _ = load("camembert")
    alone = rows(*(tokenizer.encode(["rouge", "pull"], ["", ""], LENGTH)[n] for n in ("input_ids", "attention_mask")))
    pair = tokenizer.encode(["rouge"], ["pull"], LENGTH)
    start, end = 5, 6
    assert [text[0] for text in alone] == [start] * 2
    assert [text[-1] for text in alone] == [end] * 2
    assert pair["input_ids"][0].tolist() == [*alone[0], end, *alone[1][1:]]
    assert "token_type_ids" not in pair


def test_flaubert_reads_moses_words_as_byte_pairs_and_no_types(load: Any, folders: dict[str, Path]) -> None:
    tokenizer, encoder = load("flaubert")
    columns = tokenizer.encode(["rouge"], ["l'rouge"], LENGTH)
    rouge = len(tokenizer) - 1
    start, end, unknown = 0, 1, 3
    letter = 14 + LETTERS.index("l")
    # Moses splits "l'" off the French word; the apostrophe is in no vocabulary here
    assert columns["input_ids"][0].tolist() == [start, rouge, end, letter, unknown, rouge, end]
    with torch.inference_mode():
        encoded = encoder(tokens_of(columns)).vector
        model = AutoModel.from_pretrained(folders["flaubert"]).eval()
        ids = torch.from_numpy(columns["input_ids"])
        states = model(input_ids=ids).last_hidden_state
        with_types = model(input_ids=ids, token_type_ids=torch.ones_like(ids)).last_hidden_state
    torch.testing.assert_close(encoded, states.sum(dim=1))
    assert not torch.allclose(states, with_types, atol=1e-3)  # FlauBERT takes types for words


def test_a_flaubert_that_normalises_first_runs(load: Any) -> None:
    """transformers 5.23 alone fails on it: "'EncoderDecoderCache' object is not subscriptable"."""
    tokenizer, encoder = load("flaubert that normalises first")
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


@pytest.mark.parametrize("family", FAMILIES)
def test_too_long_texts_lose_the_end_of_the_longer_one_without_a_warning(
    family: str, load: Any, caplog: pytest.LogCaptureFixture
) -> None:
    tokenizer, _ = load(family)
    titles, descriptions = texts_of(family)
    with caplog.at_level(logging.WARNING):
        columns = tokenizer.encode(titles, descriptions, LENGTH)
        alone = tokenizer.encode(titles[3:], [""], LENGTH)
    assert not caplog.records
    assert columns["input_ids"].shape == (4, LENGTH)
    assert columns["attention_mask"][3].all()
    title = alone["input_ids"][0].tolist()
    assert columns["input_ids"][3, : len(title)].tolist() == title
    assert columns["input_ids"][3, -1] == title[-1]
    assert [int(mask.sum()) for mask in columns["attention_mask"]][1] < LENGTH


@pytest.mark.parametrize("pooling", ["sum", "mean", "cls"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_texts_vector_does_not_depend_on_the_other_texts_of_the_batch(family: str, pooling: str, load: Any) -> None:
    tokenizer, encoder = load(family, pooling=pooling)
    titles, descriptions = texts_of(family)
    columns = tokenizer.encode(titles, descriptions, LENGTH)
    with torch.inference_mode():
        together = encoder(tokens_of(columns))
        for row, (title, description) in enumerate(zip(titles, descriptions, strict=True)):
            alone = encoder(tokens_of(tokenizer.encode([title], [description], LENGTH)))
            torch.testing.assert_close(together.vector[row], alone.vector[0], rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(together.tokens[row, together.mask[row]], alone.tokens[0], rtol=1e-5, atol=1e-5)
        for padding in (0, 1, 2, len(tokenizer) - 1):
            padded = np.where(columns["attention_mask"] == 1, columns["input_ids"], padding)
            assert torch.equal(encoder(tokens_of(columns | {"input_ids": padded})).vector, together.vector)
    assert together.vector.std(dim=0).min() > 1e-3  # and different texts mean different things


@pytest.mark.parametrize("family", FAMILIES)
def test_as_many_tokens_as_there_are_positions_are_read_and_no_more(family: str, load: Any) -> None:
    tokenizer, encoder = load(family, max_length=POSITIONS)
    titles, descriptions = texts_of(family)
    columns = tokenizer.encode(titles, descriptions, POSITIONS)
    assert columns["attention_mask"].sum(axis=1).max() == POSITIONS
    for padding in (columns, columns | {"input_ids": columns["input_ids"] * columns["attention_mask"]}):
        assert encoder(tokens_of(padding)).vector.isfinite().all()
    with pytest.raises(ConfigError, match=f"max_length is {POSITIONS + 1}, but the encoder reads {POSITIONS} tokens"):
        load(family, max_length=POSITIONS + 1)


def test_two_french_encoders_give_four_vectors_and_use_the_text_learning_rate(folders: dict[str, Path]) -> None:
    recipe = reading(folders, "camembert", "flaubert")
    tokenizers = {name: build_tokenizer(text, []) for name, text in recipe.model.texts.items()}
    net = build_network(recipe.model, HEADS, tokenizers).eval()
    inputs = Preprocessor(tokenizers, recipe.model).inputs(ProductBatch(*texts_of("french"), [None] * 4))
    encoded = net.encode(inputs).texts
    assert [view.present.tolist() for view in encoded] == [[True] * 4, [True, False, True, True]] * 2
    assert not torch.allclose(encoded[0].vector, encoded[2].vector, atol=1e-2)
    fit = FitSpec(epochs=1, text_learning_rate=0.25, image_learning_rate=0.5, learning_rate=1.0)
    rates = {id(weight): group["lr"] for group in parameter_groups(net, fit) for weight in group["params"]}
    for part, rate in ((net.texts["text"], 0.25), (net.texts["second_text"], 0.25), (net.image, 0.5), (net.fusion, 1)):
        assert {rates[id(weight)] for weight in part.parameters()} == {rate}
    frozen = replace(recipe.model, second_text=replace(recipe.model.texts["second_text"], frozen=True))
    net = build_network(frozen, HEADS, tokenizers).train()
    assert not any(module.training for module in net.texts["second_text"].modules())
    assert all(module.training for module in net.texts["text"].modules())
    learned = {id(weight) for group in parameter_groups(net, fit) for weight in group["params"]}
    assert not any(id(weight) in learned for weight in net.texts["second_text"].parameters())


@pytest.mark.parametrize(
    ("package", "family", "extra"),
    [("fugashi", "japanese", "ja"), ("ipadic", "japanese", "ja"), ("sacremoses", "flaubert", "fr")],
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


def test_a_sentencepiece_vocabulary_is_read_as_written_and_needs_the_extra(
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
    (tmp_path / "config.json").write_bytes((folders["camembert"] / "config.json").read_bytes())
    tokenizer = TextTokenizer.from_pretrained(str(tmp_path))
    ligature, plain = (tokenizer.encode([text], [""], LENGTH)["input_ids"].tolist() for text in ("ﬁancée", "fiancée"))
    assert ligature == plain
    tokenizer.save(tmp_path / "kept")
    assert TextTokenizer.load(tmp_path / "kept").encode(["ﬁancée"], [""], LENGTH)["input_ids"].tolist() == plain
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with pytest.raises(ConfigError, match=r"catalog-enrichment\[fr\]"):
        TextTokenizer.from_pretrained(str(tmp_path))
    assert TextTokenizer.load(tmp_path / "kept").encode(["fiancée"], [""], LENGTH)["input_ids"].tolist() == plain


def test_a_config_and_a_tokenizer_are_enough_for_random_weights(folders: dict[str, Path], tmp_path: Path) -> None:
    for file in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / file).write_bytes((folders["camembert"] / file).read_bytes())
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
    assert len(CamembertTokenizer.from_pretrained(tmp_path)) < 10


def test_weights_of_another_model_are_refused_and_damaged_ones_too(folders: dict[str, Path], tmp_path: Path) -> None:
    for file in ("config.json", "model.safetensors"):
        source = "camembert" if file == "config.json" else "flaubert"
        (tmp_path / file).write_bytes((folders[source] / file).read_bytes())
    spec = TextSpec(name=str(tmp_path), max_length=LENGTH)
    with pytest.raises(ConfigError, match=r"do not fit its config: \d+ are missing"):
        build_text_encoder(spec, 0)
    (tmp_path / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(ConfigError, match=r"model\.text\.name: cannot load"):
        build_text_encoder(spec, 0)


@pytest.mark.parametrize("random_weights", [False, True])
def test_weights_stored_in_half_precision_are_fitted_in_float32(
    random_weights: bool, folders: dict[str, Path], tmp_path: Path
) -> None:
    AutoModel.from_pretrained(folders["flaubert"]).half().save_pretrained(tmp_path)
    spec = TextSpec(name=str(tmp_path), random_weights=random_weights, max_length=LENGTH)
    encoder = build_text_encoder(spec, 0)
    again = text_encoder_from_config(AutoConfig.from_pretrained(tmp_path), spec)
    assert {weight.dtype for built in (encoder, again) for weight in built.parameters()} == {torch.float32}


def test_padding_does_not_change_the_vector_of_an_encoder_from_scratch() -> None:
    spec = TextSpec(bert=BertSize(hidden=16, layers=1, heads=2, intermediate=32, vocab_size=60), max_length=LENGTH)
    tokenizer = build_tokenizer(spec, TITLES["french"])
    encoder = build_text_encoder(spec, len(tokenizer)).eval()
    columns = tokenizer.encode(*texts_of("french"), LENGTH)
    with torch.inference_mode():
        together = encoder(tokens_of(columns)).vector
        alone = encoder(tokens_of(tokenizer.encode(["l'été"], [""], LENGTH))).vector
    torch.testing.assert_close(together[1], alone[0])


_SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
_SHORT = {"d_model": 16, "vocab_size": 50}
OTHERS: dict[str, dict[str, Any]] = {
    "roberta": _SMALL,
    "xlm-roberta": _SMALL,
    "electra": {**_SMALL, "embedding_size": 16},
    "albert": {**_SMALL, "embedding_size": 8},
    "mpnet": _SMALL,
    "deberta-v2": {**_SMALL, "relative_attention": True, "pos_att_type": ["p2c", "c2p"], "type_vocab_size": 0},
    "distilbert": {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32},
    "squeezebert": {**_SMALL, "embedding_size": 16},
    "xlnet": {**_SHORT, "n_layer": 2, "n_head": 2, "d_inner": 32},
    "t5": {**_SHORT, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2},
}


@pytest.mark.parametrize("kind", OTHERS)
def test_other_families_load_by_their_config_and_are_checked_for_padding(kind: str, tmp_path: Path) -> None:
    AutoConfig.for_model(kind, **{"vocab_size": 50} | OTHERS[kind]).save_pretrained(tmp_path)
    encoder = build_text_encoder(TextSpec(name=str(tmp_path), random_weights=True, max_length=LENGTH), 50)
    assert encoder.width == 16
    assert not any("decoder" in name or "pooler" in name for name, _ in encoder.named_parameters())


def test_unusable_encoders_are_refused(tmp_path: Path) -> None:
    refused = {
        "fnet": (_SMALL, "lets padding change"),
        "convbert": ({**_SMALL, "embedding_size": 16}, "lets padding change"),
        "vit": ({**_SMALL, "image_size": 16, "patch_size": 8}, "is no text encoder"),
        "clip": ({"text_config": _SMALL, "vision_config": _SMALL}, "is no text encoder"),
    }
    for kind, (sizes, why) in refused.items():
        AutoConfig.for_model(kind, **sizes).save_pretrained(tmp_path / kind)
        with pytest.raises(ConfigError, match=why):
            build_text_encoder(TextSpec(name=str(tmp_path / kind), random_weights=True, max_length=LENGTH), 0)
