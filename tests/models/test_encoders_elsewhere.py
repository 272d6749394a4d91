"""One other process, with the hub's settings of a user and not the tests': what it loads with a hub, and without."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from catalog_enrichment.inputs.product_batch import ProductBatch
from catalog_enrichment.models import artifact
from catalog_enrichment.models.encoders import build_tokenizer
from catalog_enrichment.models.network import build_network
from catalog_enrichment.models.predictor import Predictor

from .conftest import HEADS, TEMPERATURES
from .families import DESCRIPTIONS, FAMILIES, HIDDEN, TITLES, camembert, reading

ALL_TITLES, ALL_DESCRIPTIONS = (texts["japanese"] + texts["french"] for texts in (TITLES, DESCRIPTIONS))
NO_PICTURES: list[Any] = [None] * len(ALL_TITLES)
VERSIONS = (("japanese",), ("camembert", "flaubert"), ("flaubert that normalises first",))
SCRIPT = """
import json, socket, sys, time
from pathlib import Path
import numpy as np
from catalog_enrichment.errors import ConfigError
from catalog_enrichment.inputs.product_batch import ProductBatch
from catalog_enrichment.models.encoders import build_text_encoder, build_tokenizer
from catalog_enrichment.models.predictor import Predictor
from catalog_enrichment.models.spec import TextSpec

def width(name):
    spec = TextSpec(name=name, max_length=24)
    return build_text_encoder(spec, len(build_tokenizer(spec, []))).width

def nobody(*_, **__):
    raise OSError("Name or service not known")

out, texts = Path(sys.argv[1]), json.loads(sys.argv[2])
answers = {"with the hub": width("acme/tiny")}
socket.socket.connect = socket.getaddrinfo = nobody
answers["from the cache"] = width("acme/tiny")
start = time.monotonic()
try:
    width("acme/other")
except ConfigError as problem:
    answers["not there"] = str(problem)
answers["seconds"] = time.monotonic() - start
for folder in map(Path, sys.argv[3:]):
    predicted = Predictor.load(folder).predict(ProductBatch(*texts, [None] * len(texts[0])))
    np.savez(out / f"{folder.name}.npz", **predicted.probabilities)
(out / "answers.json").write_text(json.dumps(answers))
"""


@contextmanager
def hub(folder: Path) -> Iterator[str]:
    """The address of a server that keeps ``folder`` as the repository acme/tiny, as the hub answers for one."""

    class Hub(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.removeprefix("/acme/tiny/resolve/main/")
            known = name != self.path and (folder / name).is_file()
            body = (folder / name).read_bytes() if known else b""
            self.send_response(200 if known else 404)
            if not known:
                self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("X-Repo-Commit", "0" * 40)
            self.send_header("ETag", f'"{hashlib.sha1(body).hexdigest()}"')
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Where the other process left its answers, and the probabilities that its model versions gave here."""
    root = tmp_path_factory.mktemp("elsewhere")
    sources = {family: build(root / "sources" / family) for family, build in FAMILIES.items()}
    here: dict[str, Any] = {}
    for number, families in enumerate(VERSIONS):
        recipe = reading(sources, *families)
        tokenizers = {name: build_tokenizer(text, []) for name, text in recipe.model.texts.items()}
        net = build_network(recipe.model, HEADS, tokenizers).eval()
        artifact.save(root / str(number), net, tokenizers, recipe, TEMPERATURES)
        predictor = Predictor(net, tokenizers, recipe.model, TEMPERATURES)
        here[str(root / str(number))] = predictor.predict(
            ProductBatch(ALL_TITLES, ALL_DESCRIPTIONS, NO_PICTURES)
        ).probabilities
    (root / "sources").rename(root / "gone")
    settings = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    settings["OMP_NUM_THREADS"] = str(torch.get_num_threads())  # another number of threads gives other last bits
    texts = json.dumps([ALL_TITLES, ALL_DESCRIPTIONS])
    with hub(camembert(root / "hub")) as address:
        settings |= {"HF_ENDPOINT": address, "HF_HOME": str(root / "cache"), "HF_HUB_DISABLE_TELEMETRY": "1"}
        subprocess.run([sys.executable, "-c", SCRIPT, str(root), texts, *here], env=settings, check=True)
    return root, here


def test_a_model_version_of_every_family_needs_nothing_but_its_folder(
    elsewhere: tuple[Path, dict[str, Any]],
) -> None:
    """I8: without a network and without the folders that the encoders came from, scores are bit-equal."""
    for version, probabilities in elsewhere[1].items():
        stored = np.load(elsewhere[0] / f"{Path(version).name}.npz")
        assert set(stored) == set(probabilities) == set(HEADS)
        assert all(np.array_equal(stored[name], probabilities[name]) for name in HEADS)
        assert all(np.ptp(probabilities[name], axis=0).max() > 1e-3 for name in HEADS)  # texts do matter


def test_a_hub_name_is_downloaded_and_from_then_on_found_without_the_hub(
    elsewhere: tuple[Path, dict[str, Any]],
) -> None:
    answers = json.loads((elsewhere[0] / "answers.json").read_text())
    assert answers["with the hub"] == answers["from the cache"] == HIDDEN


def test_a_hub_name_without_a_hub_is_refused_at_once(elsewhere: tuple[Path, dict[str, Any]]) -> None:
    """transformers alone tries for most of a minute."""
    answers = json.loads((elsewhere[0] / "answers.json").read_text())
    assert answers["not there"].startswith("model.text.name: cannot load 'acme/other'")
    assert "local folder" in answers["not there"]
    assert answers["seconds"] < 5
