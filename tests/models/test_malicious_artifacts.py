"""I8 against an attacker who can write a model version and its checksums: nothing of it is run, followed or fetched.

Every attack would leave a file behind, the trace, or needs something outside of the folder.
"""

from __future__ import annotations

import builtins
import json
import pickle
import socket
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import transformers
from safetensors.torch import load_file, save_file

from catalog_enrichment.errors import ConfigError, ModelContractError
from catalog_enrichment.models import artifact, image_encoders, self_contained, version_files
from catalog_enrichment.models.image_encoders import build_image_encoder
from catalog_enrichment.models.predictor import Predictor, load_predictor
from catalog_enrichment.models.spec import ImageSpec, TextSpec
from catalog_enrichment.models.text_encoders import build_text_encoder, build_tokenizer

from .conftest import SIZE, save, tiny

ENCODER, TOKENIZER = "text/encoder/config.json", "text/tokenizer/tokenizer_config.json"


class Payload:
    """Its pickle makes the file ``trace`` when it is loaded."""

    def __init__(self, trace: Path) -> None:
        self._trace = trace

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self._trace,)


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    return tmp_path / "trace"


@pytest.fixture
def version(tmp_path: Path) -> Path:
    return save(tmp_path / "model")


@pytest.fixture(autouse=True)
def _nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builtins, "input", lambda *_: "y")  # transformers asks whether to trust code


def change(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def change_image(version: Path, **changes: Any) -> None:
    content = json.loads((version / artifact.MODEL).read_text())
    content["spec"]["image"] |= changes
    (version / artifact.MODEL).write_text(json.dumps(content))


def renew_sums(version: Path) -> Path:
    version_files.write_certificates(version, [])
    return version


def code(file: Path, trace: Path) -> None:
    """Write a module with the classes that transformers would look for."""
    classes = (
        "from transformers import *\nclass C(BertConfig): model_type = 'c'\nclass M(BertModel): config_class = C\n"
    )
    file.write_text(f"import pathlib\npathlib.Path({str(trace)!r}).touch()\n{classes}class T(BertTokenizer): pass\n")


def test_pickles_among_the_files_are_not_unpickled(version: Path, trace: Path) -> None:
    for folder in (".", "text/encoder", "text/tokenizer"):
        for name in ("pytorch_model.bin", "model.bin", "model.pth", "training_args.bin", "vocab.pkl"):
            torch.save({"weight": Payload(trace)}, version / folder / name)
    Predictor.load(renew_sums(version))
    assert not trace.exists()


def test_a_pickle_in_place_of_the_weights_is_refused(version: Path, trace: Path) -> None:
    torch.save({"weight": Payload(trace)}, version / artifact.WEIGHTS)
    with pytest.raises(ModelContractError, match="cannot be loaded: SafetensorError"):
        Predictor.load(renew_sums(version))
    assert not trace.exists()


def test_a_file_without_a_checksum_is_refused(version: Path, trace: Path) -> None:
    renew_sums(version)
    torch.save({"weight": Payload(trace)}, version / "text" / "encoder" / "pytorch_model.bin")
    with pytest.raises(ModelContractError, match=r"text/encoder/pytorch_model\.bin is not in SHA256SUMS"):
        Predictor.load(version)


@pytest.mark.parametrize("file", [ENCODER, TOKENIZER])
def test_code_in_a_version_is_not_run(file: str, version: Path, trace: Path) -> None:
    code((version / file).with_name("evil.py"), trace)
    auto = {"AutoConfig": "evil.C", "AutoModel": "evil.M", "AutoTokenizer": ["evil.T", "evil.T"]}
    change(version / file, auto_map=auto)
    Predictor.load(renew_sums(version))  # transformers' own classes are used
    assert not trace.exists()
    change(version / file, model_type="c", tokenizer_class="T")
    with pytest.raises(ModelContractError, match=r"cannot be loaded: ValueError: .* custom code"):
        Predictor.load(renew_sums(version))
    assert not trace.exists()


@pytest.mark.parametrize(
    ("file", "changes"),
    [
        (TOKENIZER, {"vocab_file": "OUTSIDE"}),
        (TOKENIZER, {"tokenizer_file": "../../../OUTSIDE"}),
        (TOKENIZER, {"spm_file": "OUTSIDE"}),
        (TOKENIZER, {"init_inputs": ["OUTSIDE"]}),
        (TOKENIZER, {"vocab": "OUTSIDE", "tokenizer_class": "CamembertTokenizer"}),
        (TOKENIZER, {"mecab_kwargs": {"mecab_dic": None, "mecab_option": "-r OUTSIDE"}}),
        (TOKENIZER, {"sudachi_kwargs": {"sudachi_config_path": "x", "sudachi_resource_dir": "x"}}),
        (ENCODER, {"attn_implementation": "kernels-community/flash-attn"}),
        (ENCODER, {"experts_implementation": "somebody/experts"}),
        (ENCODER, {"backbone": "resnet50", "use_timm_backbone": True, "use_pretrained_backbone": True}),
        (ENCODER, {"text_config": {"_name_or_path": "somebody/model"}}),
    ],
)
def test_configs_that_name_files_or_models_of_the_hub_are_refused(
    file: str, changes: dict[str, Any], version: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "words.txt"
    outside.write_text("[UNK]\n[PAD]\nsecret\n")
    change(version / file, **json.loads(json.dumps(changes).replace("OUTSIDE", str(outside))))
    with pytest.raises(ModelContractError, match="names something outside of the folder"):
        Predictor.load(renew_sums(version))


@pytest.mark.parametrize(
    "args",
    [
        {"checkpoint_path": "CHECKPOINT"},
        {"pretrained": True, "pretrained_cfg": {"file": "CHECKPOINT"}},
        {"pretrained_cfg_overlay": {"file": "CHECKPOINT"}},
        {"cache_dir": "x"},
        {"of_a_later_timm": "CHECKPOINT"},
        {"of_a_later_timm": {"nested": ["hf-hub:somebody/model"]}},
        {"of_a_later_timm": "checkpoint.pth"},
    ],
)
def test_image_arguments_that_name_checkpoints_or_files_are_refused(
    args: dict[str, Any], version: Path, trace: Path, tmp_path: Path
) -> None:
    checkpoint = tmp_path / "checkpoint.pth"
    torch.save({"weight": Payload(trace)}, checkpoint)
    args = json.loads(json.dumps(args).replace("CHECKPOINT", str(checkpoint)))
    change_image(version, args=args)
    with pytest.raises(ModelContractError, match=r"model\.image\.args: .* is refused"):
        Predictor.load(renew_sums(version))
    with pytest.raises(ConfigError, match=r"model\.image\.args: .* is refused"):
        build_image_encoder(ImageSpec(name="lcnet_035", size=SIZE, args=args))
    assert not trace.exists()


@pytest.mark.parametrize("name", ["hf-hub:timm/resnet18.a1_in1k", "local-dir:FOLDER", "FOLDER", "../model"])
def test_an_image_encoder_is_a_model_of_timm(name: str, version: Path, tmp_path: Path) -> None:
    change_image(version, name=name.replace("FOLDER", str(tmp_path)))
    with pytest.raises(ModelContractError, match="timm has no image encoder"):
        Predictor.load(renew_sums(version))


@pytest.mark.parametrize("folder", [".", "text/encoder"])
def test_a_list_of_weights_that_points_outside_is_not_followed(folder: str, version: Path, tmp_path: Path) -> None:
    tensors = load_file(version / artifact.WEIGHTS)
    save_file({name: tensor * 0 for name, tensor in tensors.items()}, tmp_path / "other.safetensors")
    index = {"metadata": {}, "weight_map": dict.fromkeys(tensors, "../other.safetensors")}
    (version / folder / "model.safetensors.index.json").write_text(json.dumps(index))
    loaded = artifact.load(renew_sums(version)).net.state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in tensors.items())
    (version / artifact.WEIGHTS).unlink()
    with pytest.raises(ModelContractError, match=r"model\.safetensors is missing"):
        artifact.load(renew_sums(version))


@pytest.mark.parametrize("name", [artifact.WEIGHTS, artifact.MODEL, ENCODER, "text", "more"])
def test_a_link_out_of_the_folder_is_refused(name: str, version: Path, tmp_path: Path) -> None:
    renew_sums(version)
    target = tmp_path / "elsewhere"
    if name == "more":
        target.mkdir()
    else:
        (version / name).rename(target)
    (version / name).symlink_to(target)
    with pytest.raises(ModelContractError, match=r"is a link|is missing"):
        Predictor.load(version)
    with pytest.raises(ModelContractError, match=r"is a link|is missing"):
        Predictor.load(renew_sums(version))


def test_a_member_that_is_a_link_is_refused(tmp_path: Path) -> None:
    members = [save(tmp_path / "vote" / artifact.MEMBERS / number) for number in ("00", "01")]
    for member in members:
        renew_sums(member)
    artifact.save_ensemble(tmp_path / "vote", "vote", members)
    load_predictor(tmp_path / "vote")
    members[1].rename(tmp_path / "elsewhere")
    members[1].symlink_to(tmp_path / "elsewhere")
    artifact.save_ensemble(tmp_path / "vote", "vote", members)
    with pytest.raises(ModelContractError, match=r"members/01 is a link"):
        load_predictor(tmp_path / "vote")


@pytest.mark.parametrize("name", ["../secret", "text/../../secret", "ABSOLUTE"])
def test_a_checksum_of_a_file_outside_of_the_folder_is_refused(name: str, version: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    renew_sums(version)
    sums = version / version_files.SUMS
    sums.write_text(f"{sums.read_text()}{version_files.sha256(secret)}  {name.replace('ABSOLUTE', str(secret))}\n")
    with pytest.raises(ModelContractError, match="secret is missing"):
        Predictor.load(version)


@pytest.mark.parametrize(
    "changes",
    [{"format": None}, {"spec": {}}, {"heads": []}, {"spec": {"text": {"bert": {"hidden": 10**9}}}}, {"heads": 5}],
)
def test_a_model_file_of_another_form_is_refused_and_no_bug(changes: dict[str, Any], version: Path) -> None:
    change(version / artifact.MODEL, **changes)
    with pytest.raises(ModelContractError):
        Predictor.load(renew_sums(version))


# --- a library of another release that unpickles, connects or runs code ---


def unpickles(trace: Path, *_: Any) -> None:
    pickle.loads(pickle.dumps(Payload(trace)))


def loads_a_checkpoint(trace: Path, *_: Any) -> None:
    torch.save({"weight": Payload(trace)}, trace.with_suffix(".pth"))
    torch.load(trace.with_suffix(".pth"), weights_only=False)


def runs_code(trace: Path, version: Path) -> None:
    code(version / "evil.py", trace)
    exec(compile((version / "evil.py").read_text(), version / "evil.py", "exec"))


def connects(*_: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname(), timeout=5).close()


def hides_it(trace: Path, *_: Any) -> None:
    try:
        unpickles(trace)
    except Exception:
        return


ATTEMPTS = [
    (unpickles, "unpickle pathlib"), (loads_a_checkpoint, "unpickle"), (runs_code, "execute .*evil.py"),
    (connects, r"look up the host 127\.0\.0\.1|connect to"), (hides_it, "unpickle pathlib"),
]  # fmt: skip


@pytest.mark.parametrize(("attempt", "said"), ATTEMPTS)
def test_i8_holds_whatever_the_libraries_do(
    attempt: Callable[..., None], said: str, version: Path, trace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    renew_sums(version)
    given = transformers.AutoTokenizer.from_pretrained

    def of_another_release(*args: Any, **options: Any) -> Any:
        attempt(trace, version)
        return given(*args, **options)

    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", of_another_release)
    with pytest.raises(ModelContractError, match=f"cannot be loaded: ValueError: it would ({said})"):
        artifact.load(version)
    assert not trace.exists()


def test_a_checkpoint_is_not_unpickled_by_a_timm_that_would(
    version: Path, trace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save({"weight": Payload(trace)}, tmp_path / "evil.pth")
    change_image(version, args={"checkpoint_path": str(tmp_path / "evil.pth")})
    monkeypatch.setattr(image_encoders, "_check_args", lambda _: None)
    monkeypatch.setattr(timm.models._factory, "load_checkpoint", lambda _, file: torch.load(file, weights_only=False))
    with pytest.raises(ModelContractError, match="it would unpickle"):
        artifact.load(renew_sums(version))
    assert not trace.exists()


def test_only_the_block_is_watched_and_only_its_thread(trace: Path) -> None:
    done = []
    with self_contained.watched():
        other = threading.Thread(target=lambda: done.append(pickle.loads(pickle.dumps(Path("x")))))
        other.start()
        other.join()
    assert done == [Path("x")]
    unpickles(trace)
    assert trace.exists()
    with self_contained.watched(network=True):
        connects()


# --- pretrained encoders of a recipe ---


def pretrained(folder: Path) -> TextSpec:
    """Write a tiny BERT with its tokenizer, as its authors would."""
    text = tiny().model.text
    assert text.bert is not None
    tokenizer = build_tokenizer(text, ["navy blue shirt", "red scarf"])
    build_text_encoder(text, len(tokenizer)).model.save_pretrained(folder)
    tokenizer.save(folder)
    return TextSpec(name=str(folder), max_length=16)


def test_a_pretrained_encoder_runs_no_code_and_unpickles_nothing(
    tmp_path: Path, trace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = pretrained(tmp_path / "bert")
    code(tmp_path / "bert" / "evil.py", trace)
    build_text_encoder(spec, 10)
    change(tmp_path / "bert" / "config.json", model_type="c", auto_map={"AutoConfig": "evil.C", "AutoModel": "evil.M"})
    with pytest.raises(ConfigError, match=r"model\.text\.name: cannot load .* custom code"):
        build_text_encoder(spec, 10)
    change(tmp_path / "bert" / "config.json", model_type="bert", auto_map={})
    (tmp_path / "bert" / "model.safetensors").unlink()
    torch.save({"weight": Payload(trace)}, tmp_path / "bert" / "pytorch_model.bin")
    with pytest.raises(ConfigError, match=r"model\.text\.name: cannot load"):
        build_text_encoder(spec, 10)
    monkeypatch.setattr(transformers.AutoModel, "from_pretrained", lambda *_, **__: unpickles(trace))
    with pytest.raises(ConfigError, match="it would unpickle"):
        build_text_encoder(spec, 10)
    (tmp_path / "bert" / "config.json").unlink()
    config = tmp_path / "bert" / "tokenizer_config.json"
    change(config, tokenizer_class="T", auto_map={"AutoTokenizer": ["evil.T", "evil.T"]})
    with pytest.raises(ConfigError, match=r"model\.text\.name: cannot load .* custom code"):
        build_tokenizer(spec, [])
    assert not trace.exists()


def test_pretrained_weights_of_an_image_encoder_are_not_unpickled(
    tmp_path: Path, trace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save({"weight": Payload(trace)}, tmp_path / "evil.pth")
    spec = ImageSpec(name="lcnet_035", size=SIZE, weights=str(tmp_path / "evil.pth"))
    with pytest.raises(ConfigError, match=r"model\.image: timm cannot make 'lcnet_035'"):
        build_image_encoder(spec)
    would = partial(torch.load, weights_only=False)
    monkeypatch.setattr(timm.models._builder, "load_state_dict", lambda file, **_: would(file))
    with pytest.raises(ConfigError, match="it would unpickle"):
        build_image_encoder(spec)
    assert not trace.exists()
