"""The head file: the newest whole note, whatever was cut short."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from coordinator.sequencing.head import SLOT, HeadFile, read_head, write_head


def test_the_newest_note_is_read_back_also_by_the_next_process(tmp_path: Path) -> None:
    path = tmp_path / "head"
    assert read_head(path) is None
    for number in range(5):
        write_head(path, b"note %d" % number)
        assert read_head(path) == b"note %d" % number
    file = HeadFile(path)
    for number in range(5, 9):
        file.write(b"note %d" % number)
        assert read_head(path) == b"note %d" % number
    file.close()


@pytest.mark.parametrize("at", [0, 8, 12, 20, 40])
def test_a_writing_that_was_cut_short_leaves_the_note_before(tmp_path: Path, at: int) -> None:
    path = tmp_path / "head"
    file = HeadFile(path)
    for note in (b"first, of some length", b"second, of some length", b"third, of some length"):
        file.write(note)
    file.close()
    data = bytearray(path.read_bytes())
    data[SLOT + at] ^= 1  # the third writing went to the second place
    path.write_bytes(data)
    assert read_head(path) == b"second, of some length"
    write_head(path, b"fourth")
    assert read_head(path) == b"fourth"


def test_a_note_that_somebody_showed_is_flushed_before_anything_rests_on_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[str] = []
    genuine = os.fsync
    monkeypatch.setattr(
        os,
        "fsync",
        lambda handle: (flushed.append(os.readlink(f"/proc/self/fd/{handle}")), genuine(handle)),
    )
    write_head(tmp_path / "head", b"the highest that anybody has")
    assert flushed == [str(tmp_path / "head"), str(tmp_path)]


def test_an_empty_or_foreign_file_says_nothing(tmp_path: Path) -> None:
    path = tmp_path / "head"
    for content in (b"", bytes(2 * SLOT), b"consilium/0\n1\nroot\n"):
        path.write_bytes(content)
        assert read_head(path) is None


def test_a_note_that_no_log_alone_signed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="none that a log alone has signed"):
        write_head(tmp_path / "head", bytes(SLOT))
