"""The config's `[images.fetch]` section: from where pictures given by a path or URI are fetched, and for how long."""

from __future__ import annotations

from dataclasses import dataclass

from catalog_enrichment.config.remote_source import check_hosts

WEB_SCHEMES = ("http", "https")
OBJECT_STORES = ("s3", "s3a", "gs", "gcs", "abfs", "abfss", "az")
REFUSED_SCHEMES = frozenset(
    {
        *("reference", "zip", "tar", "libarchive", "simplecache", "filecache", "blockcache", "cached", "dir", "local"),
        *("generic", "data", "asynclocal", "async_wrapper", "asyncwrapper", "dvc", "git", "dask", "arrow_hdfs"),
    }
)
"""Schemes of fsspec that open another URI or a local file, past the checks of both."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FetchConfig:
    """A feed names any path and URI that its author likes: what is not allowed here is not opened."""

    schemes: tuple[str, ...] = (*WEB_SCHEMES, "file", *OBJECT_STORES)
    """Allowed schemes. `file` also means plain paths; all but http, https and file are opened by fsspec."""
    allowed_folders: tuple[str, ...] = ()
    """Folders that local pictures may be in, links followed, and URIs that those in object stores must be below
    (`s3://bucket/pictures`). Relative paths start at `root`. Empty: `source.image_folder` and the folder of
    `source.path`."""
    private_hosts: tuple[str, ...] = ()
    """Names, addresses and networks (10.1.0.0/16) that http and https may connect to although they are not public."""
    seconds: float = 20.0
    """For one picture in all: resolving, connecting, redirects, retries, the whole transfer."""
    product_seconds: float = 60.0
    """For all pictures of one product, which are fetched one after the other until one is usable."""
    connect_seconds: float = 5.0
    """For one connection."""
    retries: int = 2
    """After connection errors, status 429 and 5xx: the first at once or after a moment, then after twice as long."""
    redirects: int = 3
    """Followed at most; the target of each is checked like the first URI."""
    threads: int = 8
    """Pictures that a worker fetches at the same time. It holds at most this number times `images.max_bytes`."""

    def __post_init__(self) -> None:
        if refused := sorted(REFUSED_SCHEMES & set(self.schemes)):
            raise ValueError(f"images.fetch.schemes cannot have {refused}: they open other URIs, which nobody checks")
        seconds = ((name, 0.01, 3600) for name in ("seconds", "product_seconds", "connect_seconds"))
        for name, low, high in (*seconds, ("threads", 1, 256)):
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"images.fetch.{name} must lie in [{low:g}, {high:g}], not {getattr(self, name)!r}")
        for name in ("retries", "redirects"):
            if not 0 <= getattr(self, name) <= 20:
                raise ValueError(f"images.fetch.{name} must lie in [0, 20], not {getattr(self, name)!r}")
        check_hosts("images.fetch.private_hosts", self.private_hosts)
