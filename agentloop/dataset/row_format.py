"""What a kind of row needs to be kept in Parquet: its schema with a version, and both directions of the conversion.

There are two kinds: `Row`, one segment to train on (`agentloop.dataset.schema`), and `PreferenceRow`, two continuations of one context
(`agentloop.dataset.preference_schema`). `agentloop.dataset.store` writes and reads both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import pyarrow as pa


class Trainable(Protocol):
    """What every kind of row has."""

    @property
    def id(self) -> str: ...

    @property
    def task(self) -> str: ...

    @property
    def role(self) -> str: ...

    @property
    def trained(self) -> int: ...


R = TypeVar("R", bound=Trainable)


@dataclass(frozen=True)
class RowFormat(Generic[R]):
    """How rows of one kind lie in an Arrow table.

    Attributes:
        what: What they are, in the plural, for messages.
        key: Key of a file's metadata under which its version stands.
        versions: Schemas by version, as the metadata spells it; a reader refuses any other. The last one is written.
        to_record: The row as plain values, one a column.
        from_record: The row of such a record, of any of the versions.
        digest: SHA-256 of everything in the row.
    """

    what: str
    key: bytes
    versions: Mapping[bytes, pa.Schema]
    to_record: Callable[[R], dict[str, Any]]
    from_record: Callable[[Mapping[str, Any]], R]
    digest: Callable[[R], bytes]

    @property
    def schema(self) -> pa.Schema:
        """The schema that is written, with its version in the metadata."""
        version = list(self.versions)[-1]
        return self.versions[version].with_metadata({self.key: version})
