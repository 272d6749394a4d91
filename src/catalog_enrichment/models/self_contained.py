"""Refuses a model version that is more than the weights, configs and vocabularies in its own folder (I8).

The libraries have arguments for this, with other defaults in other releases. So Python itself is watched, too: its
audit events (PEP 578) tell when an object is unpickled, a connection is made, or code is executed.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

_ACTIONS = {
    "pickle.find_class": "unpickle {0}.{1}",
    "exec": "execute {0.co_filename}",
    "socket.connect": "connect to {1}",
    "socket.getaddrinfo": "look up the host {0}",
}
"""Audit event -> what its arguments say."""

_REFERENCE = re.compile(r"init_inputs|vocab|merges|backbone|.*_(?:files?|path|dir|implementation)")
"""Keys, in configs of encoders and tokenizers, of the names of files and folders, and of models and code of the hub."""


def check_files(directory: Path, listed: Collection[str], sums: str) -> None:
    """Raise ValueError for a link, which can lead out of the folder, and a file that is not ``listed`` in ``sums``."""
    for entry in sorted(directory.rglob("*")):
        name = entry.relative_to(directory).as_posix()
        if entry.is_symlink() or not (entry.is_file() or entry.is_dir()):
            raise ValueError(f"{name} is a link, or neither file nor folder")
        if entry.is_file() and entry.name != sums and name not in listed:
            raise ValueError(f"{name} is not in {sums}")


def check_configs(folder: Path) -> None:
    """Raise ValueError if a JSON file of an encoder or a tokenizer names files, or models and code of the hub."""
    for file in sorted(folder.rglob("*.json")):
        for keys, text in texts(json.loads(file.read_text(encoding="utf-8"))):
            has_path = re.search(r"[/\\]", text) and any(key.endswith("kwargs") for key in keys)
            if has_path or any(map(_REFERENCE.fullmatch, keys[-2:])):
                raise ValueError(f"{file.name} names something outside of the folder: {'.'.join(keys)} = {text[:99]!r}")


def texts(content: Any, *keys: str) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield every text in plain data with its keys, outermost first; elements of lists have their numbers as keys."""
    if isinstance(content, str):
        yield keys, content
    elif isinstance(content, Mapping | list | tuple):
        for key, part in content.items() if isinstance(content, Mapping) else enumerate(content):
            yield from texts(part, *keys, str(key))


@dataclass(slots=True)
class _Watch:
    """What a block must not do, and what it tried of that."""

    events: Collection[str]
    untrusted: tuple[str, ...]
    """Folders whose code is not run, with a slash at the end."""
    tried: list[str] = field(default_factory=list)


_watch: ContextVar[_Watch | None] = ContextVar("_watch", default=None)


@contextmanager
def watched(directory: Path | None = None, network: bool = False) -> Iterator[None]:
    """Raise ValueError if the block unpickles an object, runs code from ``directory`` or from the hub, or makes a
    connection without ``network``; also where a library goes on after the attempt was stopped."""
    from huggingface_hub import constants

    _install()
    hub = [constants.HF_HOME, constants.HF_HUB_CACHE, os.environ.get("HF_MODULES_CACHE")]
    untrusted = tuple(f"{Path(folder).absolute()}{os.sep}" for folder in (directory, *hub) if folder)
    events = [event for event in _ACTIONS if not (network and event.startswith("socket"))]
    watch = _Watch(events, untrusted)
    token = _watch.set(watch)
    try:
        yield
    except Exception:
        if not watch.tried:
            raise
    finally:
        _watch.reset(token)
    if watch.tried:
        raise ValueError(f"it would {watch.tried[0]}, which weights and configs do not need")


@cache
def _install() -> None:
    sys.addaudithook(_refuse)  # until the process ends: a hook cannot be removed


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    if event not in _ACTIONS or (watch := _watch.get()) is None or event not in watch.events:
        return
    if event == "exec" and not arguments[0].co_filename.startswith(watch.untrusted):
        return
    watch.tried.append(_ACTIONS[event].format(*arguments))
    raise PermissionError(watch.tried[-1])
