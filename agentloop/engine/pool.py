"""Which adapter versions an engine holds, and which requests use them: an adapter leaves only when nobody needs it any more.

Every engine keeps one pool. A new version is a new name; a name is never given to other weights; beyond the limit a load is refused,
because vLLM would let the requests of the surplus adapter wait without a word.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from agentloop.engine.base import BASE, AdapterVersion, EngineFailure


class AdapterPool:
    """Adapter versions by name, with the number of requests in flight for each.

    Args:
        limit: Most versions held at once.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._versions: dict[str, AdapterVersion] = {}
        self._hashes: dict[str, str] = {}
        self._in_flight: Counter[str] = Counter()
        self._leaving: set[str] = set()

    @property
    def versions(self) -> tuple[AdapterVersion, ...]:
        """What is held now, in the order of loading."""
        return tuple(self._versions.values())

    @property
    def names(self) -> tuple[str, ...]:
        """Names of what is held now, sorted."""
        return tuple(sorted(self._versions))

    def __contains__(self, name: str) -> bool:
        return name in self._versions

    def check_room(self, version: AdapterVersion) -> bool:
        """Whether `version` still has to be loaded (False: it is held already).

        Raises:
            EngineFailure: Kind "adapter": the name is "base", was used for other weights, or every place is taken.
        """
        known = self._hashes.get(version.name)
        if version.name == BASE:
            raise EngineFailure("adapter", f"an adapter cannot be named {BASE!r}, which stands for the bare model")
        if known is not None and known != version.content_hash:
            raise EngineFailure(
                "adapter",
                f"adapter name {version.name!r} was used for other weights ({known[:12]}, now {version.content_hash[:12]});"
                " new weights need a new name",
            )
        if version.name in self._versions:
            return False
        if len(self._versions) >= self.limit:
            held = ", ".join(self.names) or "none"
            raise EngineFailure(
                "adapter", f"no place for adapter {version.name!r}: the engine was started for {self.limit} and holds {held}"
            )
        return True

    def add(self, version: AdapterVersion) -> None:
        """Hold `version` from now on."""
        self._versions[version.name] = version
        self._hashes[version.name] = version.content_hash

    def remove(self, name: str) -> None:
        """Forget `name`; its hash stays known, so that the name cannot come back with other weights."""
        self._versions.pop(name, None)
        self._leaving.discard(name)

    @contextmanager
    def use(self, name: str) -> Iterator[None]:
        """Count one request in flight for `name`. Raises `EngineFailure` of kind "adapter" if it is unknown or leaving."""
        if name != BASE and (name not in self._versions or name in self._leaving):
            held = ", ".join(self.names) or "none"
            raise EngineFailure("adapter", f"adapter {name!r} is not loaded; loaded: {held}")
        self._in_flight[name] += 1
        try:
            yield
        finally:
            self._in_flight[name] -= 1

    def in_flight(self, name: str) -> int:
        """Requests that use `name` now."""
        return self._in_flight[name]

    async def drain(self, name: str, timeout: float) -> None:
        """Refuse new requests for `name` and wait for those in flight. Raises `EngineFailure` of kind "timeout" after `timeout` seconds."""
        self._leaving.add(name)
        deadline = asyncio.get_running_loop().time() + timeout
        while self._in_flight[name]:
            if asyncio.get_running_loop().time() > deadline:
                self._leaving.discard(name)
                raise EngineFailure(
                    "timeout",
                    f"waited {timeout:g} s for {self._in_flight[name]} requests that use adapter {name!r} to end before unloading it",
                )
            await asyncio.sleep(0.01)
