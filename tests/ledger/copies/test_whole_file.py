"""A small file is there whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ledger.copies.whole_file import create_file, replace_file
from ledger.errors import StoreUnusable


class Died(BaseException):
    """The process ends here; nothing in the product catches it."""


def test_what_is_read_is_the_old_file_or_the_new_one_wherever_the_process_dies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "genesis.leaf"
    replace_file(path, b"old")
    for effects in range(3):  # the file's flush, the move, the folder's flush
        with monkeypatch.context() as patch:
            left = [effects]

            def die_in_time(real):  # type: ignore[no-untyped-def]
                def effect(*given):  # type: ignore[no-untyped-def]
                    if not left[0]:  # noqa: B023 - used within its round
                        raise Died
                    left[0] -= 1  # noqa: B023
                    return real(*given)

                return effect

            patch.setattr(os, "fsync", die_in_time(os.fsync))
            patch.setattr(Path, "replace", die_in_time(Path.replace))
            with pytest.raises(Died):
                replace_file(path, b"newer")
        assert path.read_bytes() == (b"old" if effects < 2 else b"newer")
    replace_file(path, b"newest")
    assert path.read_bytes() == b"newest"
    assert [file.name for file in tmp_path.iterdir()] == ["genesis.leaf"]


def test_a_private_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    replace_file(tmp_path / "key", b"secret", private=True)
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    path = tmp_path / "nowhere" / "member.json"
    with pytest.raises(StoreUnusable, match=r"member\.json: cannot be written: No such file"):
        replace_file(path, b"x")


def test_a_new_file_takes_no_others_place_and_leaves_nothing_where_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "alpha.invitation"

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StoreUnusable, match=r"alpha\.invitation: .*No space left on device"):
            create_file(path, b"secret", private=True)
    assert not path.exists(), "half an invitation would only be in the way"
    create_file(path, b"secret", private=True)
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"secret", 0o600)
    with pytest.raises(StoreUnusable, match="File exists"):
        create_file(path, b"another")
    assert path.read_bytes() == b"secret"
