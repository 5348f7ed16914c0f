"""What an open home keeps of what it fetches and publishes."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from ledger.copies.blobs import BlobStore, blob_ref
from ledger.errors import StoreUnusable
from ledger.exchange.home import Membership


class Coordinator:
    """Has every blob that is asked for; nothing is brought to it."""

    def get_blob(self, ref: object) -> bytes:
        return b"model"


def test_a_full_disk_is_a_refusal_that_its_caller_knows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_space(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("ledger.copies.blobs.write_file", no_space)
    blobs = BlobStore(tmp_path)
    rest = dict.fromkeys(("home", "config", "keyring", "replica", "author", "receipts", "eraser"))
    member = Membership(client=Coordinator(), blobs=blobs, **rest)  # type: ignore[arg-type]
    with pytest.raises(StoreUnusable, match="No space left on device"):
        member.fetch(blob_ref(b"model"))
    with pytest.raises(StoreUnusable, match="No space left on device"):
        member.publish(b"model")
