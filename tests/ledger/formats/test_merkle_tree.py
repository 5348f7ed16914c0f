"""A tree that grows, forgets, is cut back and resumed answers as the whole one does."""

from __future__ import annotations

from itertools import pairwise

import pytest

from ledger.errors import NotConsistent, OutsideTree
from ledger.formats.merkle import leaf_hash, root_and_paths
from ledger.formats.merkle_tree import RECENT_LEAVES, MerkleTree
from tests.ledger.formats import worked
from tests.ledger.formats.test_merkle import ENTRIES, SIZES, TREE


def test_a_tree_answers_only_for_what_it_holds() -> None:
    tree = MerkleTree.from_leaves(leaf_hash(entry) for entry in ENTRIES[:5])
    for ask, asked in [
        (lambda: tree.root(6), "size 6"),
        (lambda: tree.root(-1), "size -1"),
        (lambda: tree.leaf(5), "leaf 5"),
        (lambda: tree.inclusion(4, 4), "leaf 4 at size 4"),
        (lambda: tree.inclusion(0, 6), "size 6"),
        (lambda: tree.consistency(5, 4), "old size 5 of new size 4"),
        (lambda: tree.consistency(1, 6), "size 6"),
    ]:
        with pytest.raises(OutsideTree) as caught:
            ask()
        assert (caught.value.asked, caught.value.size) == (asked, 5)
    assert tree.consistency(0, 5) == tree.consistency(5, 5) == ()


def test_a_leaf_hash_of_another_length_leaves_the_tree_unchanged() -> None:
    tree = worked.tree(3)
    with pytest.raises(ValueError, match="a leaf hash has 32 bytes, not 31"):
        tree.append(bytes(31))
    assert (tree.size, tree.root()) == (3, worked.tree(3).root())


def test_a_truncated_tree_grows_again_as_if_nothing_had_been_there() -> None:
    for size in range(0, SIZES, 3):
        tree = MerkleTree.from_leaves(leaf_hash(entry) for entry in ENTRIES)
        tree.truncate(size)
        assert (tree.size, tree.root()) == (size, TREE.root(size))
        tree.extend(leaf_hash(entry) for entry in ENTRIES[size:])
        assert tree.root() == TREE.root()
        assert tree.consistency(1) == TREE.consistency(1)
    with pytest.raises(OutsideTree, match="size 71"):
        tree.truncate(SIZES + 1)


def test_appending_returns_indexes_in_order() -> None:
    tree = MerkleTree()
    indexes = [tree.append(leaf_hash(entry)) for entry in ENTRIES]
    assert indexes[0] == 0
    assert all(after == before + 1 for before, after in pairwise(indexes))


def test_leaves_added_together_give_the_tree_of_leaves_added_one_by_one() -> None:
    hashes = [leaf_hash(entry) for entry in ENTRIES]
    for first in range(0, SIZES + 1, 3):
        for second in range(first, SIZES + 1, 5):
            tree = MerkleTree()
            for leaf in hashes[:first]:
                tree.append(leaf)
            tree.extend(hashes[first:second])
            tree.extend(hashes[second:])
            assert [tree.root(size) for size in range(SIZES + 1)] == [
                TREE.root(size) for size in range(SIZES + 1)
            ]
            assert tree.subtrees(3, 0, 8) == TREE.subtrees(3, 0, 8)


def test_the_root_and_all_paths_over_some_leaves_are_those_of_a_tree() -> None:
    for size in range(1, 71):
        leaves = [leaf_hash(b"%d" % at) for at in range(size)]
        tree = MerkleTree.from_leaves(leaves)
        root, paths = root_and_paths(leaves)
        assert root == tree.root()
        assert paths == [tree.inclusion(at) for at in range(size)]


def test_a_hash_of_another_length_among_many_leaves_the_tree_unchanged() -> None:
    tree = MerkleTree.from_leaves([leaf_hash(b"a")])
    with pytest.raises(ValueError, match="32 bytes, not 31"):
        tree.extend([leaf_hash(b"b"), bytes(31)])
    assert tree.root() == leaf_hash(b"a")


def test_a_root_that_was_asked_for_is_another_after_the_leaves_were_replaced() -> None:
    tree = MerkleTree.from_leaves(leaf_hash(entry) for entry in ENTRIES[:5])
    before = tree.root(5)
    tree.truncate(4)
    with pytest.raises(OutsideTree):
        tree.root(5)
    tree.append(leaf_hash(b"another"))
    assert tree.root(5) != before
    assert tree.root(4) == TREE.root(4)


def test_subtrees_that_are_not_full_are_refused() -> None:
    assert TREE.subtrees(0, 3, 5) == leaf_hash(ENTRIES[3]) + leaf_hash(ENTRIES[4])
    assert TREE.subtrees(6, 0, 1) == TREE.root(64)
    assert TREE.subtrees(9, 0, 0) == b""
    for asked in ((6, 0, 2), (0, 70, 71), (0, 5, 4), (0, -1, 0)):
        with pytest.raises(OutsideTree):
            TREE.subtrees(*asked)


LEAVES = [leaf_hash(b"%d" % at) for at in range(21_000)]
WHOLE = MerkleTree.from_leaves(LEAVES)


def read_back(start: int, stop: int) -> bytes:
    return b"".join(LEAVES[start:stop])


def same_as_whole(tree: MerkleTree, size: int) -> None:
    assert tree.size == size
    sizes = {0, 1, 2, 255, 256, 257, size // 3, size // 2, size - 255, size - 1, size}
    for asked in sizes & set(range(size + 1)):
        assert tree.root(asked) == WHOLE.root(asked)
        assert tree.consistency(asked, size) == WHOLE.consistency(asked, size)
        if asked < size:
            assert tree.leaf(asked) == LEAVES[asked]
            assert tree.inclusion(asked, size) == WHOLE.inclusion(asked, size)
    for level in (0, 3, 7, 8, 9):
        stop = size >> level
        assert tree.subtrees(level, 0, stop) == WHOLE.subtrees(level, 0, stop)


@pytest.mark.parametrize("size", [8191, 8192, 8193, 12_543, 20_999])
def test_a_tree_that_forgets_old_leaves_answers_as_one_that_keeps_them(size: int) -> None:
    tree = MerkleTree(read_back)
    for at, leaf in enumerate(LEAVES[:size]):
        tree.append(leaf)
        if at % 700 == 0:
            tree.forget_older()
    tree.forget_older()
    assert len(tree._levels.hashes[0]) < 32 * 2 * RECENT_LEAVES
    same_as_whole(tree, size)
    for shorter in (size - 3, size - RECENT_LEAVES - 300, 513, 256, 255):
        tree.truncate(shorter)
        same_as_whole(tree, shorter)
    tree.extend(LEAVES[tree.size : size])
    same_as_whole(tree, size)


@pytest.mark.parametrize("size", [257, 511, 512, 513, 5000, 12_288, 20_997])
def test_a_tree_resumed_from_its_tiles_goes_on_as_before(size: int) -> None:
    before = MerkleTree.from_leaves(LEAVES[:size])
    tree = MerkleTree.resume(size, before.tiles, read_back)
    same_as_whole(tree, size)
    assert tree.tiles == before.tiles
    for leaf in LEAVES[size:]:
        tree.append(leaf)
    tree.forget_older()
    same_as_whole(tree, len(LEAVES))


def test_a_leaf_that_is_read_back_changed_or_not_at_all_is_refused() -> None:
    leaves = list(LEAVES)

    def stored(start: int, stop: int) -> bytes:
        return b"".join(leaves[start:stop])

    tree = MerkleTree(stored)
    tree.extend(LEAVES)
    tree.forget_older()
    leaves[300] = bytes(32)
    with pytest.raises(NotConsistent, match="not those that were verified") as caught:
        tree.root(301)
    assert caught.value.where == "leaves 256 to 511"
    assert tree.root(255) == WHOLE.root(255)
    del leaves[520:]
    with pytest.raises(NotConsistent, match="leaves 512 to 767: 256 bytes were read back"):
        tree.inclusion(600)


def test_tiles_of_another_size_are_refused() -> None:
    with pytest.raises(NotConsistent, match="32 bytes are no 2 hashes"):
        MerkleTree.resume(513, bytes(32), read_back)
