"""A registered version as a folder, whatever proposes: checksums, certificates, the reference for drift checks.

::

    certificates.json   the certificates; added after certification
    drift.json          scores by stratum at certification, for drift checks; added after certification
    SHA256SUMS          checksums of all other files (readable by `sha256sum -c`)

The files beside these are the proposer's: :mod:`~catalog_enrichment.models.artifact`, `proposers/`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from catalog_enrichment.errors import ModelContractError
from catalog_enrichment.models import self_contained
from catalog_enrichment.records import stable_hash

CERTIFICATES = "certificates.json"
DRIFT = "drift.json"
SUMS = "SHA256SUMS"

REMEDY = "Download the model version from the registry again, or train and register a new version"


def verify(directory: Path, needed: Collection[str]) -> None:
    """Check every file against its checksum. Raises ModelContractError, naming the first file that is missing, changed,
    a link, or without a checksum. ``needed``: files that every such folder has."""
    sums = directory / SUMS
    if not sums.is_file():
        raise ModelContractError(f"{directory} is not a model version: it has no {SUMS}. {REMEDY}")
    checksums = dict.fromkeys(needed, "")  # so that an empty or truncated list is an error
    for line in sums.read_text(encoding="utf-8", errors="replace").splitlines():
        expected, _, name = line.partition("  ")
        checksums[name] = expected
    own = {file.relative_to(directory).as_posix() for file in files(directory)}
    for name, expected in checksums.items():
        if name not in own:
            raise ModelContractError(f"{directory} is incomplete: {name} is missing. {REMEDY}")
        if sha256(directory / name) != expected:
            raise ModelContractError(f"{directory} is damaged: {name} does not match its checksum. {REMEDY}")
    try:
        self_contained.check_files(directory, checksums, SUMS)
    except ValueError as problem:
        raise ModelContractError(f"{directory} is not as it was registered: {problem}. {REMEDY}") from None


def artifact_hash(directory: Path) -> str:
    """Return the hash of all files: the identity of the whole version, certificates included."""
    return stable_hash({str(file.relative_to(directory)): sha256(file) for file in files(directory)})


def write_certificates(directory: Path, certificates: list[dict[str, Any]]) -> None:
    """Write the certificates (plain data), abstentions included, into the version."""
    write(directory, CERTIFICATES, certificates)


def read_certificates(directory: Path) -> list[dict[str, Any]]:
    """Return the version's certificates. Raises ModelContractError if it was never certified."""
    file = directory / CERTIFICATES
    if not file.is_file():
        raise ModelContractError(f"{directory} has no {CERTIFICATES}: it was not certified and may write nothing")
    certificates: list[dict[str, Any]] = json.loads(file.read_text())
    return certificates


def write_drift(directory: Path, reference: list[dict[str, Any]]) -> None:
    """Write the reference for drift checks (plain data) into the version."""
    write(directory, DRIFT, reference)


def read_drift(directory: Path) -> list[dict[str, Any]]:
    """Return the version's reference for drift checks; it is empty before certification."""
    file = directory / DRIFT
    reference: list[dict[str, Any]] = json.loads(file.read_text()) if file.is_file() else []
    return reference


def write(directory: Path, name: str, content: Any) -> None:
    """Write ``content`` as JSON, and the checksums of all files in ``directory``."""
    (directory / name).write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    write_sums(directory)


def write_sums(directory: Path) -> None:
    """Write the checksums of all files in ``directory``."""
    lines = [f"{sha256(file)}  {file.relative_to(directory).as_posix()}\n" for file in files(directory)]
    (directory / SUMS).write_text("".join(lines), encoding="utf-8")


def files(directory: Path) -> Iterator[Path]:
    """Yield the files of the folder but the checksums, in order."""
    return (file for file in sorted(directory.rglob("*")) if file.is_file() and file.name != SUMS)


def sha256(file: Path) -> str:
    """Return the hash of a file's bytes, in hexadecimal digits."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
