"""Image encoders of timm: vectors and tokens, regions, folders, weights, frozen stages, histograms."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models import save_for_hf

from catalog_enrichment.errors import ConfigError
from catalog_enrichment.models import artifact
from catalog_enrichment.models.image_encoders import (
    ColorHistogram,
    ImageEncoder,
    build_image_encoder,
    feature_map,
)
from catalog_enrichment.models.network import build_network
from catalog_enrichment.models.preprocess import normalise_pixels
from catalog_enrichment.models.spec import ImageSpec, Recipe
from catalog_enrichment.models.text_encoders import build_tokenizer

from .conftest import HEADS, TEMPERATURES, load_single_recipe

VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 1, "num_heads": 2}
SWIN = {"img_size": 64, "embed_dim": 16, "depths": (1, 1), "num_heads": (2, 2), "window_size": 4}
# name, args, side, width of the vector, of the positions, positions per side, whether [CLS] is the first token
MODELS: dict[str, tuple[str, dict[str, Any], int, int, int, int, bool]] = {
    "lcnet": ("lcnet_035", {}, 96, 1280, 176, 3, False),
    "mobilenet, which widens after pooling": ("mobilenetv3_small_050", {}, 96, 1024, 288, 3, False),
    "vision transformer": ("vit_tiny_patch16_224", VIT, 32, 16, 16, 4, True),
    "vision transformer that averages": ("vit_tiny_patch16_224", {**VIT, "global_pool": "avg"}, 32, 16, 16, 4, True),
    "registers without [CLS]": ("vit_medium_patch16_reg4_gap_256", VIT, 32, 16, 16, 4, False),
    "registers with [CLS]": ("vit_small_patch14_reg4_dinov2", VIT, 32, 16, 16, 4, True),
    "channels last": ("swin_tiny_patch4_window7_224", SWIN, 64, 32, 32, 8, False),
}


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Many small pictures: two threads that wait for each other on a busy machine take ten times as long."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def built(name: str, **spec: Any) -> ImageEncoder:
    torch.manual_seed(0)
    return build_image_encoder(ImageSpec(name=name, **spec)).eval()


@pytest.mark.parametrize("kind", MODELS)
def test_the_vector_is_timms_own_and_the_tokens_are_the_whole_and_its_positions(kind: str) -> None:
    name, args, size, width, place_width, side, has_whole = MODELS[kind]
    encoder = built(name, args=args, size=size)
    pixels = torch.randn(2, 3, size, size)
    with torch.inference_mode():
        vector, tokens = encoder(pixels)
        features = encoder.model.forward_features(pixels)
        assert torch.equal(vector, encoder.model(pixels))
    assert vector.shape == (2, width) == (2, encoder.width)
    assert tokens.shape == (2, 1 + side**2, place_width)
    assert encoder.token_width == place_width
    places = tokens[:, 1:]
    if features.ndim == 3:
        own = features[:, features.shape[1] - side**2 :].unflatten(1, (side, side))
    else:
        own = features if features.shape[-1] == place_width else features.permute(0, 2, 3, 1)
    for row in range(side):
        for column in range(side):
            assert torch.equal(places[:, side * row + column], own[:, row, column])
            assert torch.equal(feature_map(tokens)[:, :, row, column], own[:, row, column])
    torch.testing.assert_close(tokens[:, 0], features[:, 0] if has_whole else places.mean(dim=1))


def test_a_bright_spot_changes_the_token_at_its_position() -> None:
    encoder = built("convnext_atto", size=128)
    dark, bright = torch.zeros(1, 3, 128, 128), torch.zeros(1, 3, 128, 128)
    bright[:, :, 64:96, 32:64] = 5
    with torch.inference_mode():
        change = (feature_map(encoder(bright)[1]) - feature_map(encoder(dark)[1])).norm(dim=1)[0]
    assert change.shape == (4, 4)
    assert divmod(int(change.argmax()), 4) == (2, 1)


def test_regions_are_encoded_apart_and_averaged() -> None:
    """Tashu et al. 2022, eq. 2, with 4 x 4 squares and an encoder that widens after pooling."""
    encoder = built("mobilenetv3_small_050", size=128, regions=4)
    pixels = torch.randn(1, 3, 128, 128)
    with torch.inference_mode():
        vector, tokens = encoder(pixels)
        assert vector.shape == (1, encoder.width)
        assert tokens.shape == (1, 17, encoder.token_width)
        assert feature_map(tokens).shape == (1, encoder.token_width, 4, 4)
        torch.testing.assert_close(vector, tokens[:, 1:].sum(dim=1) / 16)
        assert torch.equal(tokens[:, 0], vector)
        for region in (0, 1, 3, 4, 9, 15):
            top, left = 32 * (region // 4), 32 * (region % 4)
            alone = encoder.model(pixels[:, :, top : top + 32, left : left + 32])
            torch.testing.assert_close(tokens[:, 1 + region], alone, rtol=1e-4, atol=1e-5)


# ---- folders and weights


RECIPE = """
name = "local"
[model.text.bert]
hidden = 16
layers = 1
heads = 2
intermediate = 32
[model.image]
name = "encoder"
size = {size}
[model.fusion]
kind = "concat"
[fit]
epochs = 1
"""


def assert_loaded(encoder: ImageEncoder, weights: dict[str, torch.Tensor]) -> None:
    loaded = encoder.model.state_dict()
    assert loaded
    assert all(torch.equal(value, weights[name]) for name, value in loaded.items())


def recipe_of(folder: Path, size: int) -> Recipe:
    (folder / "recipe.toml").write_text(RECIPE.format(size=size))
    return load_single_recipe(folder / "recipe.toml")


@pytest.mark.parametrize(
    ("name", "args", "size", "safe"),
    [
        ("lcnet_035", {}, 32, True),
        ("vit_tiny_patch16_224", {**VIT, "global_pool": "avg"}, 32, False),
        ("swin_tiny_patch4_window7_224", SWIN, 64, True),
    ],
)
def test_a_folder_as_timm_writes_it_gives_its_model_and_its_weights(
    name: str, args: dict[str, Any], size: int, safe: bool, tmp_path: Path
) -> None:
    exported = timm.create_model(name, num_classes=7, **args).eval()
    save_for_hf(exported, str(tmp_path / "encoder"), safe_serialization=safe)
    recipe = recipe_of(tmp_path, size)
    assert recipe.model.image.name == name
    encoder = build_image_encoder(recipe.model.image).eval()
    assert_loaded(encoder, exported.state_dict())
    pixels = torch.randn(1, 3, size, size)
    with torch.inference_mode():
        expected = exported.forward_head(exported.forward_features(pixels), pre_logits=True)
        scale = expected.abs().max()  # random weights shrink what they see
        torch.testing.assert_close(encoder(pixels)[0] / scale, expected / scale, rtol=1e-4, atol=1e-4)


def test_a_model_version_does_not_need_the_folder_again(tmp_path: Path) -> None:
    """I8"""
    exported = timm.create_model("vit_tiny_patch16_224", num_classes=7, **VIT)
    save_for_hf(exported, str(tmp_path / "encoder"), safe_serialization=True)
    recipe = recipe_of(tmp_path, 32)
    tokenizers = {"text": build_tokenizer(recipe.model.text, ["red shirt"])}
    net = build_network(recipe.model, HEADS, tokenizers)
    artifact.save(tmp_path / "version", net, tokenizers, recipe, TEMPERATURES)
    (tmp_path / "encoder").rename(tmp_path / "gone")
    loaded = artifact.load(tmp_path / "version").net.state_dict()
    assert all(torch.equal(weight, loaded[name]) for name, weight in net.state_dict().items())
    assert torch.equal(loaded["image.model.patch_embed.proj.weight"], exported.patch_embed.proj.weight)


def test_a_folder_without_weights_is_an_architecture_and_without_a_config_is_refused(tmp_path: Path) -> None:
    (tmp_path / "encoder").mkdir()
    config = tmp_path / "encoder" / "config.json"
    config.write_text(json.dumps({"architecture": "vit_tiny_patch16_224", "model_args": VIT}))
    assert build_image_encoder(recipe_of(tmp_path, 32).model.image).width == 16
    for text in ("{}", "[]", "not json", '{"architecture": "lcnet_035", "model_args": 3}'):
        config.write_text(text)
        with pytest.raises(ConfigError, match=r"config\.json with an architecture"):
            recipe_of(tmp_path, 32)


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ({"name": "lcnet_51"}, "lcnet_050"),
        ({"name": "seresnext51_32x4d"}, "seresnext50_32x4d"),
        ({"name": "./no_such_folder"}, "folder has no such folder"),
        ({"weights": "nowhere.safetensors"}, "no such file"),
        ({"name": "vit_tiny_patch16_224", "size": 64}, r"224 pixels, not 64\. Set args\.img_size = 64"),
        ({"name": "vit_tiny_patch16_224", "args": VIT, "size": 32, "regions": 2}, r"Set args\.img_size = 16"),
        ({"name": "swin_tiny_patch4_window7_224", "size": 64}, r"Set args\.img_size = 64"),
        ({"name": "lcnet_035", "args": {"nonsense": 1}}, "nonsense"),
        ({"name": "lcnet_035", "args": {"num_classes": 3}}, "num_classes"),
        ({"name": "lcnet_035", "args": {"in_chans": 1}}, "channels"),
        ({"name": "lcnet_035", "args": {"global_pool": ""}}, "returns vector shape and token width"),
        ({"name": "crossvit_9_240", "size": 240}, "several feature maps"),
    ],
)
def test_what_timm_cannot_build_or_read_is_a_config_error(spec: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        build_image_encoder(ImageSpec(**spec))


def test_a_transformer_of_any_size_may_have_a_size_other_than_its_default() -> None:
    args = {**VIT, "img_size": 64, "dynamic_img_size": True}
    assert built("vit_tiny_patch16_224", args=args, size=32)(torch.zeros(1, 3, 32, 32))[1].shape == (1, 17, 16)


@pytest.mark.parametrize("content", [b"", b"broken"])
@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_damaged_weights_are_a_config_error(suffix: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / f"weights.{suffix}").write_bytes(content)
    with pytest.raises(ConfigError, match=r"model\.image: timm cannot .* weights"):
        build_image_encoder(ImageSpec(name="lcnet_035", weights=str(tmp_path / f"weights.{suffix}")))


def test_weights_of_another_model_are_a_config_error_of_one_line(tmp_path: Path) -> None:
    torch.save(timm.create_model("lcnet_050").state_dict(), tmp_path / "other.pth")
    with pytest.raises(ConfigError, match="RuntimeError") as error:
        build_image_encoder(ImageSpec(name="mobilenetv3_small_050", weights=str(tmp_path / "other.pth")))
    assert len(str(error.value)) < 800
    assert "\n" not in str(error.value)


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
    assert_loaded(build_image_encoder(spec), trained)


@pytest.mark.parametrize("change", ["another shape", "more", "less", "another kind"])
def test_image_weights_of_a_package_for_another_architecture_are_refused(
    change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    trained = {f"_{name}": value for name, value in timm.create_model("lcnet_035", num_classes=7).state_dict().items()}
    first = next(iter(trained))
    if change == "another shape":
        trained[first] = trained[first][:-1]
    elif change == "more":
        trained["_more.weight"] = torch.zeros(3)
    elif change == "less":
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


def test_image_weights_come_from_a_local_file_without_their_classifier(tmp_path: Path) -> None:
    trained = timm.create_model("lcnet_035", num_classes=7)
    file = tmp_path / "weights.safetensors"
    save_file(trained.state_dict(), file)
    spec = ImageSpec(name="lcnet_035", size=32, weights=str(file))
    assert_loaded(build_image_encoder(spec), trained.state_dict())
    untrained = build_image_encoder(spec, pretrained=False).model
    assert not torch.equal(untrained.conv_stem.weight, trained.conv_stem.weight)


# ---- frozen stages


def test_frozen_stages_keep_weights_and_batch_statistics() -> None:
    encoder = build_image_encoder(ImageSpec(name="lcnet_035", size=32, frozen_stages=3, palette=4)).train()
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    optimizer = torch.optim.SGD([weight for weight in encoder.parameters() if weight.requires_grad], lr=0.1)
    encoder(torch.randn(4, 3, 32, 32))[0].square().sum().backward()
    optimizer.step()
    after = encoder.state_dict()
    changed = {name for name, value in before.items() if not torch.equal(value, after[name])}
    statistics = {name for name in before if "running" in name}
    assert statistics
    assert not changed & statistics
    weights = {name.removeprefix("model.") for name in before if name.startswith("model.")} - statistics
    first = {name for name in weights if name.startswith(("conv_stem", "bn1", "blocks.0.", "blocks.1."))}
    learned = {name for name, weight in encoder.model.named_parameters() if weight.requires_grad}
    assert learned == {name for name, _ in encoder.model.named_parameters()} - first
    assert {name.removeprefix("model.") for name in changed if name.startswith("model.")} & learned
    assert not {f"model.{name}" for name in first} & changed
    assert "palette.project.1.weight" in changed


def test_freezing_all_stages_is_refused_and_says_what_to_do() -> None:
    with pytest.raises(ConfigError, match=r"lcnet_035 has 8 stages, so at most 7 .* not 8.*model\.image\.frozen"):
        build_image_encoder(ImageSpec(name="lcnet_035", frozen_stages=8))
    with pytest.raises(ValueError, match="frozen_stages must not be negative"):
        ImageSpec(frozen_stages=-1)


def test_stages_that_timm_does_not_know_are_a_config_error_and_scoring_does_not_need_them() -> None:
    spec = ImageSpec(name="pit_ti_224", size=224, frozen_stages=1)
    with pytest.raises(ConfigError, match="timm does not know the stages of pit_ti_224"):
        build_image_encoder(spec)
    assert all(weight.requires_grad for weight in build_image_encoder(spec, pretrained=False).parameters())


@pytest.mark.parametrize("frozen", [True, False])
def test_checking_an_encoder_changes_neither_its_statistics_nor_the_random_state(frozen: bool) -> None:
    torch.manual_seed(0)
    untried = build_image_encoder(ImageSpec(name="lcnet_035", frozen=frozen), pretrained=False)
    after = torch.rand(1)
    torch.manual_seed(0)
    tried = build_image_encoder(ImageSpec(name="lcnet_035", frozen=frozen))
    assert torch.equal(torch.rand(1), after)
    expected = untried.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in tried.state_dict().items())
    assert {weight.requires_grad for weight in tried.parameters()} == {not frozen}


# ---- colour histograms

COLOURED = ImageSpec(name="lcnet_035", size=32, palette=6)


def test_histograms_count_the_pixels_of_the_picture_and_of_its_centre() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    normalised = normalise_pixels(pixels, np.ones(3, dtype=bool), COLOURED)
    actual = ColorHistogram(COLOURED).histograms(normalised).numpy()
    for picture, row in zip(pixels, actual, strict=True):
        for part, shares in ((picture, row[:512]), (picture[8:24, 8:24], row[512:])):
            counts = np.zeros(512)
            for red, green, blue in part.reshape(-1, 3) // 32:
                counts[int(red) * 64 + int(green) * 8 + int(blue)] += 1
            # a level's edge may fall to either side of it, for pixels were normalised in between
            assert np.abs(shares**2 * part.shape[0] * part.shape[1] - counts).sum() <= 0.01 * counts.sum()


def test_a_colour_histogram_widens_the_image_vector_and_is_fitted() -> None:
    plain, coloured = build_image_encoder(ImageSpec(name="lcnet_035", size=32)), build_image_encoder(COLOURED)
    vector, tokens = coloured(torch.randn(2, 3, 32, 32))
    assert vector.shape == (2, plain.width + 6)
    assert coloured.width == plain.width + 6
    assert tokens.shape[2] == coloured.token_width == plain.token_width
    vector.sum().backward()
    assert coloured.palette is not None
    assert all(weight.grad is not None for weight in coloured.palette.parameters())
