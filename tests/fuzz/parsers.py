"""The one list of parsers of bytes from outside; the suite, the long run and a test of completeness use it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from tests.fuzz import documents, doors, kept, log_formats, messages, pledges
from tests.fuzz.parser import Parser

PARSERS: dict[str, Parser] = {
    parser.name: parser
    for parser in (
        *log_formats.PARSERS,
        *documents.PARSERS,
        *messages.PARSERS,
        *pledges.PARSERS,
        *doors.PARSERS,
        *kept.PARSERS,
    )
}

ROOMS = ("privacy", "ledger", "node", "coordinator", "audit", "consilium")
_READS = re.compile(r"(parse|decode|read|load|unpack|split|open|from)(_\w+)?")

ELSEWHERE: dict[str, str] = {
    "audit.verification.sources.open_copies": "see `audited-bundle` and `database`",
    "consilium.actions.log_sources.open_at": "opens what `open_copies` and `open_tiles` read",
    "consilium.actions.log_sources.open_source": "opens what `open_copies` and `open_tiles` read",
    "consilium.actions.ledger.offline.open_here": "opens what `open_copies` reads",
    "consilium.actions.reading.open_view": "opens a home, whose files are here one by one",
    "consilium.actions.speaking.open_member": "opens a home, whose files are here one by one",
    "consilium.experiment.Experiment.from_fields": "takes a mapping of Python's, as `parse_written`",
    "coordinator.sequencing.cosignatures.Cosignatures.open": "begins to collect; nothing is read",
    "coordinator.sequencing.opening.open_log": "the own store and snapshot, see `history`",
    "ledger.copies.blobs.BlobStore.open_upload": "opens a file by its name, which `api` tries",
    "ledger.copies.database.Database.read": "a transaction",
    "ledger.copies.database.open_database": "the operator's own URL",
    "ledger.copies.database.parse_url": "the operator's own URL",
    "ledger.copies.replica.Replica.open": "reads leaves and notes, which are here",
    "ledger.copies.leaves.read_leaves": "frames rows of the own store",
    "ledger.copies.stored_tiles.StoredTiles.read": "writes tiles from the own store",
    "ledger.exchange.home.MemberHome.open": "opens a home, whose files are here one by one",
    "ledger.exchange.home.MemberHome.open_replica": "opens a home, whose files are here one by one",
    "ledger.copies.succession.read_proposal": "`parse_canonical` on bodies, which `entry-body` tries",
    "ledger.experiment.masked.open_sum": "takes a typed round",
    "ledger.rules.reverify.read_rows": "rows of the own store, whose bytes `leaf` and `entry-body` try",
    "node.training.rounds.train.FastSum.load": "numbers that `unpack_model` read",
    "node.training.sums.composed.ComposedSum.load": "numbers that `unpack_model` read",
    "node.training.sums.dense.DenseSum.load": "numbers that `unpack_model` read",
    "node.training.rounds.train.load_weights": "numbers that `unpack_model` read",
    "ledger.experiment.adaptive_clip.split": "arithmetic",
    "ledger.experiment.adaptive_clip.split_of": "arithmetic",
    "ledger.experiment.tensors.from_grid": "arithmetic",
    "ledger.formats.keys.SealingKey.from_seed": "32 bytes of our own",
    "ledger.formats.keys.SigningKey.from_seed": "32 bytes of our own",
    "ledger.formats.merkle_tree.MerkleTree.from_leaves": "hashes of our own",
    "ledger.rules.members.open_seat": "looks into the state",
    "node.data.holdings.Holdings.split": "divides rows in memory",
    "node.data.snapshot.split_table": "divides rows in memory",
    "node.register.individual.open_spend": "opens a sealed record, and reads what `allowance` reads",
    "node.register.private.PrivateRegister.open": "the node's own database",
    "node.register.tables.open_tables": "the node's own database",
    "node.training.networks.modules.load_flat": "numbers that `unpack_model` read",
    "node.training.process.worker.Worker.load_dataset": "asks the training process, whose answers `frame` tries",
    "privacy.masking.shamir.split": "makes shares",
    "privacy.masking.keys.open_share": "needs both members' secrets; its refusals are in tests/privacy",
}
"""Functions with a reader's name that are no parser of outside bytes, or are tried under another."""


def readers() -> Iterator[str]:
    """Dotted names of all public functions and methods whose name says that they read."""
    root = Path(__file__).parents[2]
    for room in ROOMS:
        for file in sorted((root / room).rglob("*.py")):
            module = ".".join(file.relative_to(root).with_suffix("").parts)
            for node in ast.parse(file.read_text()).body:
                yield from _named(node, module)
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                    for inner in node.body:
                        yield from _named(inner, f"{module}.{node.name}")


def _named(node: ast.stmt, where: str) -> Iterator[str]:
    if isinstance(node, ast.FunctionDef) and _READS.fullmatch(node.name):
        yield f"{where}.{node.name}"
