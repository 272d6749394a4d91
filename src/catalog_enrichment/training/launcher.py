"""Where recipes are fitted, and by whom: what the training and the comparison job share."""

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
    """An empty folder, gone when the job ends, and how `[training]` wants a recipe fitted: in this process, or by
    several, for which Spark is started under the job's name. Raises ConfigError if there is no such section."""
    settings = config.training
    if settings is None:
        raise ConfigError(f"the config has no [training] section: {job} does not know which recipe to fit")
    # read when torch is loaded: on shared cores, threads that spin for ever while they wait train at a fiftieth of
    # their speed, and threads that do not spin at all at two thirds
    os.environ.setdefault("GOMP_SPINCOUNT", "30000")
    from catalog_enrichment.training.fit import fit

    shared = config.path(settings.shared_path) if settings.shared_path else None
    if shared:
        shared.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="catalog-enrichment-", dir=shared) as name:
        workdir = Path(name)
        if settings.processes == 1:
            yield workdir, fit
            return
        from catalog_enrichment import session
        from catalog_enrichment.training.distributed import fitter

        spark = session.start(config, job)
        yield workdir, fitter(spark, workdir / "group", settings.processes, local=not settings.on_cluster)
