"""The temporary folder and the processes that fit recipes; shared by the training and the comparison job."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from catalog_enrichment.errors import ConfigError

if TYPE_CHECKING:
    from catalog_enrichment.config.schema import Config
    from catalog_enrichment.training.distributed import Fitter


@contextmanager
def fitting_resources(config: Config, job: str) -> Iterator[tuple[Path, Fitter]]:
    """An empty temporary folder, and the function that fits a recipe: in this process, or in `training.processes`
    processes, for which Spark is started with ``job`` as its application name. The folder is deleted at the end.

    Raises ConfigError if there is no section `[training]`.
    """
    settings = config.training
    if settings is None:
        raise ConfigError(f"the config has no [training] section: {job} does not know which recipe to fit")
    # read when torch is loaded. Measured on shared cores: with unlimited spinning of waiting threads, training runs at
    # 1/50 of its speed; without spinning, at 2/3
    os.environ.setdefault("GOMP_SPINCOUNT", "30000")
    from catalog_enrichment.training.fit import fit

    shared_folder = config.path(settings.shared_path) if settings.shared_path else None
    if shared_folder:
        shared_folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="catalog-enrichment-", dir=shared_folder) as folder:
        workdir = Path(folder)
        if settings.processes == 1:
            yield workdir, fit
            return
        from catalog_enrichment.spark import session
        from catalog_enrichment.training.distributed import distributed_fitter

        spark = session.start(config, job)
        yield workdir, distributed_fitter(spark, workdir / "group", settings.processes, local=not settings.on_cluster)
