"""A log keeps whole records and only those, wherever it is cut."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentloop.trace.append_log import AppendLog, read_log

HEADER = 12


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(records=st.lists(st.binary(max_size=40), max_size=6), data=st.data())
def test_a_log_that_is_cut_keeps_what_is_whole(tmp_path_factory: pytest.TempPathFactory, records: list[bytes], data: st.DataObject) -> None:
    path = tmp_path_factory.mktemp("log") / "x.log"
    log = AppendLog(path)
    for record in records:
        log.append(record)
    log.close()
    assert list(read_log(path)) == records
    end = data.draw(st.integers(0, path.stat().st_size))
    os.truncate(path, end)
    whole = 0
    while whole < len(records) and sum(HEADER + len(record) for record in records[: whole + 1]) <= end:
        whole += 1
    assert list(read_log(path)) == records[:whole]


def test_a_damaged_record_ends_the_log(tmp_path: Path) -> None:
    log = AppendLog(tmp_path / "x.log")
    for record in (b"first", b"second", b"third"):
        log.append(record)
    log.close()
    content = bytearray(log.path.read_bytes())
    content[content.index(b"second")] ^= 1
    log.path.write_bytes(content)
    assert list(read_log(log.path)) == [b"first"]
    log.path.write_bytes(b"\xff" * 50)
    assert list(read_log(log.path)) == []


def test_a_write_that_fails_leaves_the_log_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = AppendLog(tmp_path / "x.log")
    log.append(b"first")

    class Full:
        def __init__(self, file: object) -> None:
            self.file = file

        def write(self, part: memoryview) -> int:
            if len(part) > 5:
                self.file.write(part[:3])
                raise OSError(errno.ENOSPC, "No space left on device")
            return self.file.write(part)

        def __getattr__(self, name: str) -> object:
            return getattr(self.file, name)

    with monkeypatch.context() as patch:
        patch.setattr(log, "_file", Full(log._file))
        with pytest.raises(OSError, match="No space"):
            log.append(b"too long a record")
    log.append(b"second")
    log.close()
    assert list(read_log(log.path)) == [b"first", b"second"]
