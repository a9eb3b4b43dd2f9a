"""How the vectors of a space are kept and searched in memory."""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["flat", "flat-fp16", "hnsw", "ivf"]


@dataclass(frozen=True, slots=True)
class IndexOptions:
    """Options of every index of a store.

    kind: "flat" and "flat-fp16" (half the memory and faster for a query alone, slower for 16 at a time;
    similarities off by about 1e-3) compare with every record; "hnsw" and "ivf" with some, from
    `approximate_from` records on (fewer are searched flat).
    nlist: 0 means 4 * sqrt(records). threads: CPU threads of one search. gpu: flat kinds alone.
    """

    kind: Kind = "flat"
    m: int = 32
    ef_construction: int = 80
    ef_search: int = 64
    nlist: int = 0
    nprobe: int = 32
    approximate_from: int = 200_000
    threads: int = 1
    gpu: bool = False
