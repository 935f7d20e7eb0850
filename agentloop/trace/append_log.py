"""An append-only file of records that survives a kill at any instant.

Each record is its length, its CRC-32 and its bytes, and is on the disk when `append` returns. A record that a kill cut short is
recognised and left out when the file is read; what was appended before it is whole.
"""

from __future__ import annotations

import os
import struct
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

_HEADER = struct.Struct("<QI")
SYNC_SECONDS = 1.0


class AppendLog:
    """Appends to a new file at `path`; one writer at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("ab", buffering=0)
        self._end = path.stat().st_size
        self._synced = 0.0

    def append(self, record: bytes | memoryview) -> None:
        """Write a record.

        Raises:
            OSError: It could not be written (disk full); the file is as it was before.
        """
        body = memoryview(record).cast("B")
        try:
            for part in (memoryview(_HEADER.pack(len(body), zlib.crc32(body))), body):
                while part:
                    part = part[self._file.write(part) or 0 :]
            if time.monotonic() - self._synced >= SYNC_SECONDS:
                os.fsync(self._file.fileno())
                self._synced = time.monotonic()
        except OSError:
            self._file.truncate(self._end)
            raise
        self._end += _HEADER.size + len(body)

    def close(self) -> None:
        """Close the file, synced."""
        os.fsync(self._file.fileno())
        self._file.close()


def read_log(path: Path) -> Iterator[bytes]:
    """The whole records of a log, up to the first that is cut short or damaged."""
    with path.open("rb") as file:
        while len(header := file.read(_HEADER.size)) == _HEADER.size:
            length, checksum = _HEADER.unpack(header)
            if length > os.fstat(file.fileno()).st_size:
                return
            record = file.read(length)
            if len(record) != length or zlib.crc32(record) != checksum:
                return
            yield record
