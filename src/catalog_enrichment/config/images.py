"""The config's `[images]` section: limits on pictures, their store, and where they may be fetched from."""

from __future__ import annotations

from dataclasses import dataclass, field

from catalog_enrichment.config.strict import check_folder, check_hosts, check_ranges

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
    """Limit for one picture: resolving, connecting, redirects, retries, the whole transfer."""
    product_seconds: float = 60.0
    """Limit for all pictures of one product, which are fetched in order until a picture is usable."""
    connect_seconds: float = 5.0
    """Limit for one connection."""
    retries: int = 2
    """After connection errors, status 429 and 5xx: the first at once or after a moment, then after twice as long."""
    redirects: int = 3
    """Followed at most; the target of each is checked like the first URI."""
    threads: int = 8
    """Pictures that a worker fetches at the same time. It holds at most this number times `images.max_bytes`."""

    def __post_init__(self) -> None:
        if refused := sorted(REFUSED_SCHEMES & set(self.schemes)):
            raise ValueError(f"images.fetch.schemes cannot have {refused}: they open other URIs, which nobody checks")
        limit = (0.01, 3600)
        check_ranges("images.fetch", self, seconds=limit, product_seconds=limit, connect_seconds=limit)
        check_ranges("images.fetch", self, threads=(1, 256), retries=(0, 20), redirects=(0, 20))
        check_hosts("images.fetch.private_hosts", self.private_hosts)


@dataclass(frozen=True, kw_only=True, slots=True)
class ImagesConfig:
    """Limits on a picture, beyond which it counts as unusable, and on the share of unusable pictures."""

    max_bytes: int = 20_000_000
    """Size of the encoded picture, bytes."""
    max_pixels: int = 50_000_000
    """Width x height as declared in the header, checked before any pixel is decoded."""
    max_per_product: int = 20
    """Pictures of one product that are tried at most, in the feed's order, until a picture is usable."""
    store: str = ""
    """Folder of the pictures that merchants send as bytes, which all executors share; each is there once, by its hash.
    It belongs to one catalog: maintain_catalog removes what the catalog's products do not name. Empty: `pictures` in
    `catalog.path`. Relative paths start at `root`."""
    keep_scaled: bool = True
    """Keep a scaled copy of every picture in `store`, made when it is first read: training, scoring, comparisons,
    reports and the review page read the copy, and the picture is fetched once. About 25 kB each (25 GB per million)."""
    scaled_side: int = 288
    """Longest side of a copy at least, pixels; it is below twice that. At least `model.image.size` of every recipe, or
    twice that with `model.image.trim`. A model version writes only with the value that it was certified with."""
    revalidate: bool = False
    """Ask web servers each time whether a picture with a copy has changed (ETag, Last-Modified). An unchanged picture
    is not sent again; where the server cannot be reached, the copy is used."""
    fetch: FetchConfig = field(default_factory=FetchConfig)
    sample: int = 200
    """Products with pictures whose pictures an import tries before it writes anything; 0: none."""
    max_unusable: float = 0.9
    """Refuse (exit 3) an import or training where more of the products with pictures have no usable picture; 1: no."""

    def __post_init__(self) -> None:
        check_folder("images.store", self.store)
        check_ranges("images", self, max_bytes=(1, 2**31), max_pixels=(1, 2**31), max_per_product=(1, 10_000))
        check_ranges("images", self, scaled_side=(32, 4096))
        check_ranges("images", self, sample=(0, 100_000), max_unusable=(0, 1))

    @property
    def copy_side(self) -> int | None:
        """Return the side of the copies that scores come from; None where they come from the pictures themselves."""
        return self.scaled_side if self.keep_scaled else None


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredImagesConfig(ImagesConfig):
    """`[images]` for code that opens pictures, with absolute folders (:meth:`Config.pictures`)."""

    root: str = ""
    """The config's `root`: pictures below it have paths relative to it, so that the folder can be copied and moved."""
    store_settings: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    """Settings and credentials of the store, where it is an object store's."""

    def __post_init__(self) -> None:
        """Check nothing: the config has been checked, and ``store`` may be a URI here."""
