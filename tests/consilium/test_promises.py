"""What the register command makes of the setting ``promises`` and of ``--lifetime``."""

from __future__ import annotations

from pathlib import Path

import pytest

from consilium.actions.dataset.registering import _book, _share
from consilium.errors import InputError
from node.register.promises import Share
from tests.federation import small_schema


def test_a_lifetime_needs_a_book_that_the_home_names(tmp_path: Path) -> None:
    assert _book(tmp_path, small_schema("basel-heart"), None) is None
    with pytest.raises(InputError, match=r"node\.toml names none; write promises ="):
        _book(tmp_path, small_schema("basel-heart"), 8.0)


def test_a_federation_gets_the_part_of_delta_that_goes_with_its_epsilon(tmp_path: Path) -> None:
    (tmp_path / "node.toml").write_text(f'promises = "{tmp_path / "promises.db"}"\n')
    book = _book(tmp_path, small_schema("basel-heart"), 8.0)
    assert book is not None
    assert book.lifetime() == Share(8_000_000, 10**10)
    assert _share(book, 5.0) == 6.25e-6
    assert _share(book, 80.0) == 1e-5  # the book refuses it, not the arithmetic
    assert _share(book, None) is None
    assert _share(None, 5.0) is None
