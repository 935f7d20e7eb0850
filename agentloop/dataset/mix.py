"""Several sources of rows mixed by share (`build: {mix: {a: 0.8, b: 0.2}}`): exact proportions, no row twice, deterministic by seed."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping

from agentloop.dataset.row import Row, RowSource
from agentloop.errors import Mistake


class MixedRows:
    """A `RowSource` that draws without replacement from several others in given shares.

    The mix is as long as the shares allow without repeating a row: the source that is scarcest for its share is used whole. Empty
    sources are left out and the shares of the others scaled up (a replay store is empty in the first iteration); `counts` says what was
    taken of each.

    Raises:
        Mistake: A share is negative, all are zero, or names of shares and sources differ.
    """

    def __init__(self, sources: Mapping[str, RowSource], shares: Mapping[str, float], *, seed: int = 0) -> None:
        if set(sources) != set(shares):
            raise Mistake("a mix needs one share a source", found=sorted(shares), expected=f"shares of {sorted(sources)}")
        if any(share < 0 for share in shares.values()) or sum(shares.values()) <= 0:
            raise Mistake("shares of a mix must be positive numbers", found=dict(shares))
        self._sources = dict(sources)
        self._seed = seed
        self.counts = _counts({name: len(source) for name, source in sources.items()}, shares)

    def __len__(self) -> int:
        return sum(self.counts.values())

    def __iter__(self) -> Iterator[Row]:
        """Rows interleaved at random by the seed, those of one source in its own order; each source is read once."""
        order = random.Random(f"{self._seed}/order")
        streams = {name: self._chosen(name) for name in self.counts}
        left = dict(self.counts)
        while remaining := sum(left.values()):
            at = order.randrange(remaining)
            for name in left:
                if at < left[name]:
                    left[name] -= 1
                    yield next(streams[name])
                    break
                at -= left[name]

    def _chosen(self, name: str) -> Iterator[Row]:
        source = self._sources[name]
        chosen = set(random.Random(f"{self._seed}/{name}").sample(range(len(source)), self.counts[name]))
        return (row for index, row in enumerate(source) if index in chosen)


def _counts(lengths: Mapping[str, int], shares: Mapping[str, float]) -> dict[str, int]:
    """Rows to take of each source: the largest whole numbers in the shares' proportion, rounded by largest remainder."""
    used = {name: share for name, share in shares.items() if share > 0 and lengths[name] > 0}
    if not used:
        return dict.fromkeys(lengths, 0)
    whole = sum(used.values())
    total = int(min(lengths[name] * whole / share for name, share in used.items()) + 1e-9)
    exact = {name: total * share / whole for name, share in used.items()}
    counts = {name: min(int(value + 1e-9), lengths[name]) for name, value in exact.items()}
    for name in sorted(used, key=lambda name: counts[name] - exact[name]):
        if sum(counts.values()) < total and counts[name] < lengths[name]:
            counts[name] += 1
    return {name: counts.get(name, 0) for name in lengths}
