"""The hazard corpus: values that databases, drivers and migration tools are known to change, with the canonical text each must keep.

`load_corpus(url, engine)` makes the tables in a database with nothing but that engine's driver, so that any test can migrate them.
"""

from __future__ import annotations

from tests.hazards import mongodb, mysql, postgres, sqlite
from tests.hazards.loading import load_corpus
from tests.hazards.model import CorpusTable, Hazard

BY_ENGINE: dict[str, tuple[Hazard, ...]] = {
    "postgresql": postgres.HAZARDS,
    "mysql": mysql.HAZARDS,
    "sqlite": sqlite.HAZARDS,
    "mongodb": mongodb.HAZARDS,
}
ALL: tuple[Hazard, ...] = tuple(h for hazards in BY_ENGINE.values() for h in hazards)

__all__ = ["ALL", "BY_ENGINE", "CorpusTable", "Hazard", "load_corpus"]
