"""The impact index of one generation, opened beside the encoder that asks it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from codeintel_rev.encoders.sparse import SparseEncoder, SparseEncoders
from codeintel_rev.errors import IndexIncompatible, IndexUnavailable
from codeintel_rev.io.impacts import REBUILD, ImpactIndex


@dataclass(frozen=True, slots=True)
class SparseIndex:
    """Impacts by chunk, and what makes those of a query. Safe for many threads."""

    impacts: ImpactIndex
    encoder: SparseEncoder

    @classmethod
    def open(cls, directory: Path, encoders: SparseEncoders) -> Self:
        """Map the index in `directory` and load its model, which takes seconds at the first call.

        Raises IndexUnavailable when there is none, IndexIncompatible when its impacts are of another model,
        IndexCorrupt, and what opening the encoder raises.
        """
        if not directory.is_dir():
            raise IndexUnavailable("there is no impact index.", REBUILD)
        impacts, encoder = ImpactIndex.open(directory), encoders.get()
        if impacts.model != encoder.model_id:
            raise IndexIncompatible(
                f"the index holds impacts of {impacts.model[:80]}, the encoder is {encoder.model_id[:80]}.",
                "Index again, or configure the model it was indexed with.",
            )
        encoder.encode_query("warm")
        return cls(impacts, encoder)
