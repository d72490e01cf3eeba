"""What the records of all engines have in common."""

from __future__ import annotations

from pipeline.settings import Settings


class EngineForm(Settings):
    """Drawn parameters of a tumor's form; each engine's `Form` is one of these."""

    engine: str  # in each record the literal name of its engine, by which a stored record is read back
