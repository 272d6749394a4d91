"""The models of examples/bring_your_own: registered in an MLflow store, loaded where this project is not, and asked."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import random
import subprocess
import sys
import time
import tomllib
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from types import ModuleType, SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from PIL import Image

from catalog_enrichment import dictionary
from catalog_enrichment.config.load import load_config
from catalog_enrichment.proposers.answer_rows import Cells, RowReader
from catalog_enrichment.proposers.answers import AnswerReader

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "examples" / "bring_your_own"
COLOURS = {"Black": (0, 0, 0), "Red": (220, 20, 20), "Blue": (20, 20, 220)}


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def endpoint() -> ModuleType:
    return load("http_endpoint")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An MLflow store in a file, and MLflow's own store as it was, afterwards."""
    import mlflow

    before = mlflow.get_tracking_uri()
    yield f"sqlite:///{tmp_path_factory.mktemp('store') / 'mlflow.db'}"
    mlflow.set_tracking_uri(before)


# --- scikit-learn -----------------------------------------------------------------------------------------------------


def picture(colour: tuple[int, int, int]) -> bytes:
    encoded = io.BytesIO()
    Image.new("RGB", (60, 80), colour).save(encoded, "JPEG")
    return encoded.getvalue()


def products(count: int = 180) -> pd.DataFrame:
    """The first half tells its colour in the title, the second in the picture, only."""
    draw = random.Random(5)
    rows = []
    for number in range(count):
        colour = draw.choice(list(COLOURS))
        thing = draw.choice(["shirt", "scarf", "bag"])
        in_title = number < count // 2
        title = f"{thing} in {colour.lower()}" if in_title else f"{thing} for every day"
        rows.append((title, None if in_title else picture(COLOURS[colour]), colour))
    return pd.DataFrame(rows, columns=["title", "image", "colour"])


CODE = """
import json, sys
class Refused:
    def find_spec(self, name, *_):
        if name.partition(".")[0] == "catalog_enrichment":
            raise ImportError("this project is not installed here")
sys.meta_path.insert(0, Refused())
import mlflow, pandas as pd
model = mlflow.pyfunc.load_model(sys.argv[1])
asked = pd.read_parquet("asked.parquet")
both = [model.predict(asked), pd.concat([model.predict(asked.iloc[[row]]) for row in range(len(asked))])]
print(json.dumps([frame.to_dict("list") for frame in both]))
"""


@pytest.mark.filterwarnings("ignore:.*An input example was not provided:UserWarning")
def test_the_sklearn_model_answers_where_this_project_is_not(store: str, tmp_path: Path) -> None:
    labelled = products()
    labels = labelled.pop("colour").tolist()
    labels[:10] = [None] * 10
    module = load("sklearn_model")
    uri = module.log(module.fit(labelled, {"colour": labels}), "colours", store, str(tmp_path / "artifacts"))
    assert uri == "models:/colours/1"
    asked = pd.DataFrame(
        {
            "title": ["Scarf in red", "Bag for every day", "Bag for every day", "Shirt in blue", "Shirt in blue"],
            "image": [
                None,
                picture(COLOURS["Blue"]),
                picture(COLOURS["Black"]),
                b"no picture",
                picture((0, 0, 0))[:90],
            ],
            "description": [None, None, "", "for children", None],
        }
    )
    asked.to_parquet(tmp_path / "asked.parquet")
    told = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CODE, uri],
        cwd=tmp_path,
        env=os.environ | {"MLFLOW_TRACKING_URI": store},
        capture_output=True,
        text=True,
        check=True,
    )
    together, one_by_one = json.loads(told.stdout.splitlines()[-1])
    assert together["colour"] == ["Red", "Blue", "Black", "Blue", "Blue"]
    assert all(0.5 < score <= 1 for score in together["colour_score"])
    assert one_by_one == together, "a score is about its own product only"


def test_a_picture_without_colours_is_no_colour() -> None:
    histogram = load("sklearn_model").color_histogram
    for nothing in (None, float("nan"), b"", b"GIF89a", picture((0, 0, 0))[:60]):
        assert histogram(nothing).sum() == 0
    assert histogram(picture(COLOURS["Red"])).nonzero()[0].tolist() == [(220 // 32) * 64]


def test_an_attribute_with_nothing_to_learn_is_an_error() -> None:
    module = load("sklearn_model")
    few = products(30)
    with pytest.raises(ValueError, match="size: fewer than two values"):
        module.fit(few, {"size": ["L"] * 30})
    with pytest.raises(ValueError, match="size: 2 labels for 30 products"):
        module.fit(few, {"size": ["L", "M"]})


# --- HTTP endpoint ----------------------------------------------------------------------------------------------------

Reply = tuple[int, Any, dict[str, str]]


class Server:
    """An API on loopback. ``replies``: title -> what each request about it gets, the last one again and again."""

    def __init__(self) -> None:
        self.replies: dict[str, list[Reply]] = {}
        self.requests: list[tuple[str, float]] = []
        """Title, and when it was asked."""
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.answered: defaultdict[str, Event] = defaultdict(Event)
        self.url = ""

    def asked(self, title: str) -> int:
        return [asked for asked, _ in self.requests].count(title)


def answer(value: str | None, score: Any = 0.9, evidence: Any = "title") -> dict[str, Any]:
    return {"colour": {"value": value, "score": score, "evidence": evidence}}


@pytest.fixture
def server() -> Iterator[Server]:
    own = Server()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            title = asked["product"]["title"] if "product" in asked else "chat"
            own.bodies.append(asked)
            own.headers.append(dict(self.headers))
            own.requests.append((title, time.monotonic()))
            replies = own.replies.get(title, [(200, answer(title), {})])
            status, content, headers = replies[min(own.asked(title), len(replies)) - 1]
            if "slow" in headers:
                time.sleep(float(headers["slow"]))
            if "after" in headers:
                own.answered[headers["after"]].wait(20)
            body = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            try:
                self.end_headers()
                self.wfile.write(body)
            except OSError:  # the client did not wait
                self.close_connection = True
            own.answered[title].set()

        def log_message(self, *_: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        own.url = f"http://127.0.0.1:{http.server_address[1]}/answers"
        thread = Thread(target=http.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield own
        finally:
            http.shutdown()
            thread.join()


Ask = Callable[..., Any]


@pytest.fixture
def model(server: Server, endpoint: ModuleType) -> Callable[..., Any]:
    """Make a model of the endpoint, with settings that wait little."""

    def made(**settings: Any) -> Any:
        given = {"url": server.url, "attributes": {"colour": ["Red", "Blue"]}, "budget": 100}
        given |= {"read_seconds": 0.3, "backoff_seconds": 0.01, "requests_per_second": 1000.0, "retries": 2}
        own = endpoint.Endpoint()
        own.load_context(SimpleNamespace(model_config=asdict(endpoint.Settings(**(given | settings)))))
        return own

    return made


def ask(model: Any, *titles: str) -> list[Any]:
    answers: list[Any] = model.predict(None, pd.DataFrame({"title": titles}))["colour"].tolist()
    return answers


def test_rows_keep_their_order_and_a_null_value_is_no_proposal(server: Server, model: Ask) -> None:
    server.replies = {
        "first": [(200, answer("first"), {"after": "second"})],
        "nothing": [(200, {"colour": {"value": None}}, {})],
        "bare": [(200, {"colour": {"value": "Red", "score": 1}}, {})],
    }
    cells = ask(model(threads=3, read_seconds=5.0), "first", "second", "nothing", "bare")
    assert cells[0] == [{"value": "first", "score": 0.9, "evidence": "title"}]
    assert cells[1][0]["value"] == "second"
    assert cells[2:] == [[], [{"value": "Red", "score": 1.0, "evidence": None}]]


def test_temporary_failures_are_tried_again_and_retry_after_is_waited_for(server: Server, model: Ask) -> None:
    server.replies = {
        "busy": [(429, b"", {"Retry-After": "1"}), (200, answer("Red"), {})],
        "broken": [(500, b"", {}), (503, b"", {}), (200, answer("Red"), {})],
        "slow": [(200, answer("Blue"), {"slow": "0.6"}), (200, answer("Red"), {})],
    }
    own = model(threads=1)
    assert [cell[0]["value"] for cell in ask(own, "busy", "broken", "slow")] == ["Red"] * 3
    assert [server.asked(title) for title in server.replies] == [2, 3, 2]
    first, second = (at for title, at in server.requests if title == "busy")
    assert second - first >= 1


@pytest.mark.parametrize(
    ("reply", "message", "calls"),
    [
        ((500, b"", {}), "failed 3 times, at last with HTTP status 500", 3),
        ((200, b"{}", {"slow": "0.6"}), "failed 3 times, at last with ReadTimeoutError", 3),
        ((429, b"", {"Retry-After": "3600"}), "asks to wait 3,600 s, more than max_wait_seconds", 1),
        ((401, b"", {}), "HTTP status 401, 0 bytes; it is not asked again", 1),
        ((302, b"", {"Location": "/elsewhere"}), "HTTP status 302", 1),
        ((200, b" " * 1_000_001, {}), "HTTP status 200, 1,000,001 bytes", 1),
        ((200, b"<html>", {}), "is not the JSON that was asked for", 1),
        ((200, [answer("Red")], {}), "no object with `value` for colour", 1),
        ((200, {"color": {"value": "Red"}}, {}), "no object with `value` for colour", 1),
        ((200, answer("Red", None), {}), "a `score` from 0 to 1", 1),
        ((200, answer("Red", "0.9"), {}), "a `score` from 0 to 1", 1),
        ((200, answer("Red", True), {}), "a `score` from 0 to 1", 1),
        ((200, answer("Red", 1.01), {}), "a `score` from 0 to 1", 1),
        ((200, b'{"colour": {"value": "Red", "score": NaN}}', {}), "a `score` from 0 to 1", 1),
        ((200, answer("Red", 0.9, ["title"]), {}), "`evidence` must be a text or null", 1),
    ],
)
def test_a_product_without_a_usable_answer_is_an_error(
    server: Server, model: Ask, endpoint: ModuleType, reply: Reply, message: str, calls: int
) -> None:
    server.replies = {"bad": [reply]}
    own = model()
    with pytest.raises(endpoint.EndpointError, match=r"^row 1 \('bad'\): ") as raised:
        ask(own, "good", "bad", "other")
    assert message in str(raised.value)
    assert server.asked("bad") == calls
    # the batch is asked about in parts, to find the product: what was answered is not asked again
    assert ask(own, "good", "other")[1][0]["value"] == "other"
    with pytest.raises(endpoint.EndpointError):
        ask(own, "bad")
    assert len(server.requests) == calls + 2


def test_no_call_is_made_beyond_the_budget(server: Server, model: Ask, endpoint: ModuleType) -> None:
    server.replies = {"b": [(500, b"", {}), (200, answer("Red"), {})]}
    own = model(budget=4, threads=3)
    ask(own, "a", "b")  # three calls
    for _ in range(2):
        with pytest.raises(endpoint.BudgetSpent, match="budget of 4 calls to the endpoint is spent"):
            ask(own, "c", "d", "e")
    assert len(server.requests) == 4
    assert ask(own, "b")[0][0]["value"] == "Red", "what is known needs no call"


def test_the_rate_holds_for_all_threads(server: Server, model: Ask) -> None:
    ask(model(requests_per_second=20.0, threads=4), *"abcdef")
    times = sorted(at for _, at in server.requests)
    assert times[-1] - times[0] >= 5 / 20 - 0.03


def test_the_connection_is_given_up_after_its_seconds(model: Ask, endpoint: ModuleType) -> None:
    start = time.monotonic()
    with pytest.raises(endpoint.EndpointError, match="failed 3 times, at last with NewConnectionError"):
        ask(model(url="http://127.0.0.1:9/", connect_seconds=0.2), "a")
    assert time.monotonic() - start < 3


def test_a_chat_api_gets_the_picture_and_its_text_is_read(server: Server, model: Ask) -> None:
    text = f"```json\n{json.dumps(answer('Red'))}\n```"
    server.replies = {"chat": [(200, {"choices": [{"message": {"content": text}}]}, {})]}
    asked = pd.DataFrame({"title": ["Shirt"], "image": [picture(COLOURS["Red"])]})
    assert model(chat_model="vision").predict(None, asked)["colour"][0][0]["value"] == "Red"
    content = server.bodies[0]["messages"][0]["content"]
    assert '"title": "Shirt"' in content[0]["text"]
    assert content[1]["image_url"]["url"].startswith("data:image/jpeg;base64,/9j/")


@pytest.mark.filterwarnings("ignore:.*An input example was not provided:UserWarning")
def test_the_key_is_sent_and_is_nowhere_else(
    server: Server, endpoint: ModuleType, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    monkeypatch.setenv("SHOP_VISION_KEY", "letmein-27")
    settings = endpoint.Settings(url=server.url, attributes={"colour": []}, budget=2, key_env="SHOP_VISION_KEY")
    uri = endpoint.log(settings, "vision", store, str(tmp_path))
    loaded = mlflow.pyfunc.load_model(uri)
    assert loaded.predict(pd.DataFrame({"title": ["Red"]}))["colour"][0][0]["value"] == "Red"
    assert server.headers[0]["Authorization"] == "Bearer letmein-27"
    database = Path(store.removeprefix("sqlite:///"))
    files = [database, *(file for file in tmp_path.rglob("*") if file.is_file())]
    assert any(b"SHOP_VISION_KEY" in file.read_bytes() for file in files)
    assert not any(b"letmein-27" in file.read_bytes() for file in files)
    for unusable in ("", "letmein\n-27"):
        monkeypatch.setenv("SHOP_VISION_KEY", unusable)
        with pytest.raises(Exception, match="environment variable SHOP_VISION_KEY must hold") as raised:
            loaded.predict(pd.DataFrame({"title": ["Blue"]}))
        assert "-27" not in str(raised.value)
    assert len(server.requests) == 1


@pytest.mark.parametrize("url", ["https://shop:secret@example.com/", "http://example.com/"])
def test_a_url_that_would_give_a_secret_away_is_refused(endpoint: ModuleType, url: str) -> None:
    with pytest.raises(ValueError, match="url must ") as raised:
        endpoint.Settings(url=url, attributes={"colour": []}, budget=1)
    assert "shop:secret" not in str(raised.value)


def test_the_settings_of_the_example_are_settings(endpoint: ModuleType) -> None:
    settings = endpoint.Settings(**tomllib.loads((FOLDER / "endpoint.toml").read_text()))
    assert settings.chat_model


@pytest.mark.parametrize(
    ("header", "seconds"),
    [(None, None), ("soon", None), ("nan", None), ("3", 3), ("-3", 0), ("Thu, 01 Jan 1970 00:00:00 GMT", 0)],
)
def test_retry_after_has_seconds_or_a_date(endpoint: ModuleType, header: str | None, seconds: float | None) -> None:
    assert endpoint.retry_after(header) == seconds


# --- answers of a language model --------------------------------------------------------------------------------------


def test_the_raw_answers_are_read_and_what_is_none_is_counted() -> None:
    config = load_config(FOLDER / "llm_answers.toml")
    assert config.proposals is not None
    assert config.proposer is not None
    assert (config.proposer.name, config.proposer.version) == (config.proposals.name, config.proposals.version)
    lines = [json.loads(line) for line in config.path(config.proposals.path).read_text().splitlines()]
    rows = RowReader(cells={"color": Cells("color", "color_score", "color_evidence")}, json="answer")
    reader = AnswerReader(dictionary.load(config.path(config.catalog.dictionary)))
    found = {
        line["sku"]: [
            (proposal.candidate.value, proposal.evidence)
            for answer in rows.answers(line).values()
            for proposal in reader.proposals("color", [answer], "en")
        ]
        for line in lines
    }
    assert found["1"] == [("Blue", "navy")]
    assert found["3"] == [("Black", "Black leather belt")]
    assert found["4"] == [("Blue", "Blue denim jacket")]
    assert found["5"] == found["9"] == found["10"] == found["11"] == []
    counts = reader.counts["color"]
    assert (counts.without_value, counts.unreadable, counts.bad_score) == (1, 1, 1)
    assert counts.examples() == {"Beige": 1}
