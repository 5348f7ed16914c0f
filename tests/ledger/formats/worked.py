"""A worked example whose bytes another implementation computed: keys, leaves, checkpoint.

Anyone can recompute it: the seeds are public, so these keys protect nothing.
"""

from __future__ import annotations

from ledger.formats.keys import SigningKey
from ledger.formats.merkle import leaf_hash
from ledger.formats.merkle_tree import MerkleTree
from ledger.formats.note import COSIGNATURE_V1, VerifierKey

LOG_KEY = SigningKey.from_seed(bytes(range(32)))
WITNESS_KEY = SigningKey.from_seed(bytes(range(32, 64)))
ORIGIN = "example.org/consilium"
LOG = VerifierKey(ORIGIN, LOG_KEY.public)
WITNESS = VerifierKey("example.org/witness/a", WITNESS_KEY.public, COSIGNATURE_V1)

LEAVES = tuple(
    bytes.fromhex(text)
    for text in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
)
LEAF_HASHES = tuple(leaf_hash(leaf) for leaf in LEAVES)

CHECKPOINT_TEXT = b"example.org/consilium\n3\nrra8/idLcKFPsGel5VeCZNsPqbUa9eC6FZFY8yngbnc=\n"
CHECKPOINT = (
    CHECKPOINT_TEXT
    + (
        "\n— example.org/consilium "
        "Ene/RKeJSIf6bbDkJxzK8pJ73VHwtFsD2538F6XCMpUviQhYMip5KtA4gAyAlkAdslpM6Wc9ugveYRSKfrM/2w5G"
        "swc=\n"
    ).encode()
)
COSIGNATURE = (
    "— example.org/witness/a "
    "KXm3MAAAAABpVGeAplK1t41wdvhJF32k9ON4b35Luxt47rX03JzQiHEDHWnIGUTtSxvD8CnXCCOnAQU4BjYSdHKNejRNYq+"
    "RurP9DQ==\n"
).encode()
COSIGNATURE_TIME_S = 1767139200


def tree(size: int = len(LEAVES)) -> MerkleTree:
    return MerkleTree.from_leaves(LEAF_HASHES[:size])
