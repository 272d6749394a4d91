"""An HTTP endpoint as an MLflow pyfunc: a vision or language model behind a chat API, or behind an API of your own.

    python examples/bring_your_own/http_endpoint.py examples/bring_your_own/endpoint.toml --name vision \\
        --tracking-uri sqlite:////srv/shop/mlflow.db --artifacts /srv/shop/mlartifacts

The endpoint is asked once per product. It gets a POST of JSON and answers {"ATTRIBUTE": {"value": ..., "score": 0..1,
"evidence": ...}}; a null value says that there is none. A product whose answer fails is an error: nothing is guessed.
Where each process that loads the model has its own limits, N processes send N times `requests_per_second` and have N
times the `budget`.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import random
import time
import tomllib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from email.utils import parsedate_to_datetime
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any
from urllib.parse import urlsplit

import mlflow
import pandas as pd
import urllib3
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, Schema
from mlflow.types.schema import Array, Object, Property

TEXTS = ("title", "description", "category", "language")
RETRIED = frozenset({429, 500, 502, 503, 504})
MAX_BYTES = 1_000_000
"""Longer answers are not read."""
PROMPT = """Which values do these attributes of the product have? Choose among the values that are listed; null if
neither the text nor the picture tells it. Answer with JSON only: an object with a key per attribute, each with "value",
"score" (your probability from 0 to 1 that the value is right) and "evidence" (the words that tell it, or "picture")."""


class EndpointError(RuntimeError):
    """The endpoint gave no usable answer about a product."""


class BudgetSpent(EndpointError):
    """This process may not call the endpoint again."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The model's config. It is stored with the model: it has the name of the key's variable, never the key."""

    url: str
    attributes: dict[str, list[str]]
    """Attribute -> the values to choose among; empty: any."""
    budget: int
    """Calls of a process in all, retries among them."""
    key_env: str = ""
    """Environment variable with the key, on every machine that scores; it is sent as a bearer token."""
    chat_model: str = ""
    """Model of a chat API (as OpenAI's, vLLM's or Ollama's); empty: the endpoint is an API of your own."""
    connect_seconds: float = 5.0
    read_seconds: float = 60.0
    """Longest silence of the endpoint within an answer."""
    retries: int = 4
    backoff_seconds: float = 1.0
    """Wait before the first retry; it doubles with each, and is shortened by up to a half at random."""
    max_wait_seconds: float = 60.0
    """Longest wait before a retry. An endpoint that asks for more (Retry-After) is not asked again."""
    requests_per_second: float = 5.0
    threads: int = 4

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.username or parts.password:
            raise ValueError("url must have no user and password: the model's files would have them; use key_env")
        if parts.scheme != "https" and parts.hostname not in ("127.0.0.1", "::1", "localhost"):
            raise ValueError(
                f"url must begin with https://, not {parts.scheme}://: the key would be sent in clear text"
            )
        if self.budget < 1 or self.requests_per_second <= 0 or self.threads < 1 or not self.attributes:
            raise ValueError("budget, requests_per_second and threads must be positive, and attributes not empty")


class Limits:
    """The rate and the budget of all threads of a process."""

    def __init__(self, budget: int, per_second: float) -> None:
        self._lock, self._left, self._budget = Lock(), budget, budget
        self._seconds, self._next = 1 / per_second, 0.0

    def take(self) -> None:
        """Wait until a call is allowed, and count it. Raises BudgetSpent."""
        with self._lock:
            if not self._left:
                raise BudgetSpent(
                    f"the budget of {self._budget:,} calls to the endpoint is spent; nothing more is asked by this "
                    "process. Register the model with a larger `budget`, or run it on fewer products"
                )
            self._left -= 1
            start = self._next = max(self._next, time.monotonic())
            self._next += self._seconds
        time.sleep(max(0.0, start - time.monotonic()))

    def pause(self, seconds: float) -> None:
        """Begin no further call before so many seconds have passed."""
        with self._lock:
            self._next = max(self._next, time.monotonic() + seconds)


class Endpoint(mlflow.pyfunc.PythonModel):
    """Asks the endpoint about each product."""

    def load_context(self, context: Any) -> None:
        """Read the settings; the key is read from the environment with the first call."""
        self.settings = settings = Settings(**context.model_config)
        self._limits = Limits(settings.budget, settings.requests_per_second)
        timeout = urllib3.Timeout(connect=settings.connect_seconds, read=settings.read_seconds)
        self._pool = urllib3.PoolManager(maxsize=settings.threads, block=True, timeout=timeout, retries=False)
        self._known: dict[bytes, dict[str, Any] | EndpointError] = {}

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:  # noqa: ARG002
        """Return a row per product, in order, with a list of {value, score, evidence} per attribute; empty: no value.

        Raises EndpointError for the first product without a usable answer, after all have been asked. Who then asks
        about the batch in parts, to find that product, makes no call twice: this process keeps what was answered.
        """
        products = model_input.reindex(columns=[*TEXTS, "image"]).astype(object)
        products = products.where(products.notna(), None)
        if len(self._known) > 10_000:
            self._known.clear()
        headers = {"Content-Type": "application/json", **self._authorization()}
        with ThreadPoolExecutor(self.settings.threads, thread_name_prefix="endpoint") as threads:
            answers = list(threads.map(partial(self._answer, headers=headers), products.to_dict("records")))
        for row, (product, answer) in enumerate(zip(products["title"], answers, strict=True)):
            if isinstance(answer, BudgetSpent):
                raise answer
            if isinstance(answer, EndpointError):
                raise EndpointError(f"row {row} ({str(product)[:60]!r}): {answer}") from answer
        return pd.DataFrame(answers, columns=list(self.settings.attributes), index=model_input.index)

    def _answer(self, product: dict[str, Any], headers: dict[str, str]) -> dict[str, Any] | EndpointError:
        """Return attribute -> list of {value, score, evidence}; or why there is no answer."""
        body = json.dumps(self._question(product)).encode()
        if body not in self._known:
            try:
                self._known[body] = self._checked(self._call(body, headers))
            except BudgetSpent as spent:
                return spent
            except EndpointError as problem:
                self._known[body] = problem
        return self._known[body]

    def _question(self, product: dict[str, Any]) -> dict[str, Any]:
        image = base64.b64encode(product["image"]).decode() if product["image"] else None
        asked = {"product": {name: product[name] for name in TEXTS}, "attributes": self.settings.attributes}
        if not self.settings.chat_model:
            return {**asked, "image": image}
        content: list[dict[str, Any]] = [{"type": "text", "text": f"{PROMPT}\n{json.dumps(asked)}"}]
        if image:
            kind = "png" if image.startswith("iVBOR") else "webp" if image.startswith("UklGR") else "jpeg"
            content.append({"type": "image_url", "image_url": {"url": f"data:image/{kind};base64,{image}"}})
        messages = [{"role": "user", "content": content}]
        return {"model": self.settings.chat_model, "temperature": 0, "messages": messages}

    def _call(self, body: bytes, headers: dict[str, str]) -> bytes:
        """Return the body of the endpoint's answer. Raises EndpointError, when all retries have failed too."""
        for attempt in range(self.settings.retries + 1):
            self._limits.take()
            asked_wait = None
            try:
                with self._pool.request(
                    "POST", self.settings.url, body=body, headers=headers, redirect=False, preload_content=False
                ) as response:
                    content = response.read(MAX_BYTES + 1)
            except urllib3.exceptions.HTTPError as problem:
                failure = f"{type(problem).__name__} (connect_seconds, read_seconds)"
            else:
                if response.status == 200 and len(content) <= MAX_BYTES:
                    return content
                failure = f"HTTP status {response.status}, {len(content):,} bytes"
                if response.status not in RETRIED:
                    raise EndpointError(f"the endpoint answered with {failure}; it is not asked again")
                asked_wait = retry_after(response.headers.get("Retry-After"))
            if asked_wait is not None and asked_wait > self.settings.max_wait_seconds:
                raise EndpointError(f"{failure}: asks to wait {asked_wait:,.0f} s, more than max_wait_seconds")
            if attempt < self.settings.retries:
                self._limits.pause(asked_wait or 0.0)
                wait = min(self.settings.backoff_seconds * 2**attempt, self.settings.max_wait_seconds)
                time.sleep(wait * random.uniform(0.5, 1))
        raise EndpointError(f"the endpoint failed {self.settings.retries + 1} times, at last with {failure}")

    def _authorization(self) -> dict[str, str]:
        """Return the header with the key. The messages of errors do not have the key."""
        name = self.settings.key_env
        if not name:
            return {}
        key = os.environ.get(name, "").strip()
        if not key or not key.isascii() or not key.isprintable():
            raise EndpointError(
                f"the environment variable {name} must hold the endpoint's key where products are scored"
            )
        return {"Authorization": f"Bearer {key}"}

    def _checked(self, content: bytes) -> dict[str, Any]:
        """Return attribute -> list of {value, score, evidence}. Raises EndpointError for any other answer."""
        try:
            answer = json.loads(content)
            if self.settings.chat_model:
                text = answer["choices"][0]["message"]["content"].strip()
                answer = json.loads(text.removeprefix("```json").removeprefix("```").removesuffix("```"))
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as problem:
            raise EndpointError(f"the answer is not the JSON that was asked for: {content[:80]!r}") from problem
        checked: dict[str, Any] = {}
        for attribute in self.settings.attributes:
            given = answer.get(attribute) if isinstance(answer, Mapping) else None
            if not isinstance(given, Mapping) or "value" not in given:
                raise EndpointError(f"the answer has no object with `value` for {attribute}: {content[:80]!r}")
            value, score, evidence = given["value"], given.get("score"), given.get("evidence")
            if value is None:
                checked[attribute] = []
                continue
            is_number = isinstance(score, int | float) and not isinstance(score, bool)
            if not isinstance(value, str) or not is_number or not 0 <= score <= 1:
                raise EndpointError(
                    f"{attribute} needs a text `value` and a `score` from 0 to 1, not {str(given)[:80]}"
                )
            if evidence is not None and not isinstance(evidence, str):
                raise EndpointError(f"{attribute}: `evidence` must be a text or null, not {str(evidence)[:80]}")
            checked[attribute] = [{"value": value, "score": float(score), "evidence": evidence}]
        return checked


def retry_after(header: str | None) -> float | None:
    """Return the seconds of a Retry-After header, which has seconds or a date; None without one that can be read."""
    try:
        seconds = float(header or "")
    except ValueError:
        try:
            seconds = parsedate_to_datetime(header or "").timestamp() - time.time()
        except ValueError:
            return None
    return max(0.0, seconds) if seconds == seconds else None


def log(settings: Settings, name: str, tracking_uri: str, artifacts: str | None = None) -> str:
    """Register the model and return its URI, models:/NAME/VERSION. ``artifacts``: as in sklearn_model.py."""
    columns = [ColSpec("string", column, required=column == "title") for column in TEXTS]
    properties = [Property("value", DataType.string), Property("score", DataType.double)]
    answer = Array(Object([*properties, Property("evidence", DataType.string, required=False)]))
    signature = ModelSignature(
        Schema([*columns, ColSpec("binary", "image", required=False)]),
        Schema([ColSpec(answer, attribute) for attribute in settings.attributes]),
    )
    mlflow.set_tracking_uri(tracking_uri)
    known = mlflow.get_experiment_by_name(name)
    folder_of_files = Path(artifacts).resolve().as_uri() if artifacts else None
    experiment = known.experiment_id if known else mlflow.create_experiment(name, artifact_location=folder_of_files)
    with mlflow.start_run(experiment_id=experiment):
        logged = mlflow.pyfunc.log_model(
            name="model",
            python_model=__file__,
            model_config=asdict(settings),
            signature=signature,
            pip_requirements=["mlflow", "pandas", "urllib3>=2"],
            registered_model_name=name,
        )
    return f"models:/{name}/{logged.registered_model_version}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", type=Path, help="TOML file with the fields of Settings")
    parser.add_argument("--name", required=True, help="name of the registered model")
    parser.add_argument("--tracking-uri", required=True, help="MLflow's store, as mlflow.tracking_uri of the config")
    parser.add_argument("--artifacts", help="folder of the model's files, for a store without a server")
    options = parser.parse_args()
    settings = Settings(**tomllib.loads(options.settings.read_text()))
    print(log(settings, options.name, options.tracking_uri, options.artifacts))


if __name__ == "__main__":
    main()
else:  # MLflow runs this file to load the model
    mlflow.models.set_model(Endpoint())
