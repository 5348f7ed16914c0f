"""What our commands write, judged by programs that others wrote: Go's x/mod, and pymerkle.

They judge honest files and damaged ones; a damaged one that only we refuse would be our mistake, too.
"""

from __future__ import annotations

import base64
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pymerkle
import pytest
from pymerkle import InmemoryTree

from ledger.formats.checkpoint import parse_checkpoint
from ledger.formats.note import parse_note
from ledger.formats.proof import parse_proof
from tests.checkers import go_program
from tests.consilium.conftest import Run
from tests.consilium.places import EVERYWHERE, Places
from tests.patience import PATIENCE_S

SOURCE = Path(__file__).parent / "go_offline" / "main.go"
INDEXES = (0, 1, 7, 255, 256, 299)

Go = Callable[..., str]


@pytest.fixture(scope="module")
def go() -> Go:
    """Run the Go program; returns what it printed, or its reason after ``refused: ``."""
    program = go_program(SOURCE)

    def run(*arguments: object) -> str:
        command = [str(program), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
        if done.returncode:
            return f"refused: {done.stderr.strip()}"
        return done.stdout.strip()

    return run


@dataclass(frozen=True)
class Files:
    """What a sceptic is handed."""

    proof: Path
    leaf: Path
    policy: Path


@pytest.fixture
def files(run: Run, places: Places, tmp_path: Path) -> Files:
    made = Files(tmp_path / "p", tmp_path / "l", tmp_path / "policy")
    assert run("ledger", "proof", 7, *places.at("home"), "--out", made.proof).code == 0
    assert run("ledger", "leaf", 7, *places.at("home"), "--out", made.leaf).code == 0
    assert run("ledger", "policy", *places.at("home"), "--out", made.policy).code == 0
    return made


@pytest.mark.parametrize("kind", EVERYWHERE)
def test_go_accepts_the_proofs_and_the_policy_of_every_place(
    go: Go, run: Run, places: Places, tmp_path: Path, kind: str
) -> None:
    proof, leaf, policy = tmp_path / "p", tmp_path / "l", tmp_path / "policy"
    assert run("ledger", "policy", *places.at(kind), "--out", policy).code == 0
    for index in INDEXES:
        assert run("ledger", "proof", index, *places.at(kind), "--out", proof).code == 0
        assert run("ledger", "leaf", index, *places.at("home"), "--out", leaf).code == 0
        expected = f"entry {index} of {places.federation.log.size}"
        assert go("proof", proof, leaf, policy) == expected


def test_go_and_our_check_refuse_the_same_damaged_files(
    go: Go, run: Run, files: Files, places: Places
) -> None:
    """A bit in each part of each file: index, path, size, root, signature, leaf, keys, quorum."""
    policy = files.policy.read_text()
    lines = files.proof.read_text().split("\n")
    at = lines.index("")  # the empty line before the checkpoint

    def swapped(number: int) -> str:
        line = lines[number]
        middle = len(line) // 2
        other = "A" if line[middle] != "A" else "B"
        changed = line[:middle] + other + line[middle + 1 :]
        return "\n".join([*lines[:number], changed, *lines[number + 1 :]])

    proofs = {
        "index": files.proof.read_text().replace("index 7\n", "index 8\n"),
        "path": swapped(3),
        "one hash less": "\n".join(lines[:3] + lines[4:]),
        "one hash more": "\n".join([*lines[:3], lines[3], *lines[3:]]),
        "size": "\n".join([*lines[: at + 2], "299", *lines[at + 3 :]]),
        "root": swapped(at + 3),
        "the log's signature": swapped(at + 5),
        "a cosignature": swapped(at + 6),
        "without a witness": "\n".join([*lines[:-2], ""]),
    }
    for part, text in proofs.items():
        broken = files.proof.with_name("broken")
        broken.write_text(text)
        assert go("proof", broken, files.leaf, files.policy).startswith("refused: "), part
        ours = run("ledger", "check", broken, "--leaf", files.leaf, "--policy", files.policy)
        assert ours.code != 0, part
    other = files.leaf.with_name("other")
    other.write_bytes(places.federation.leaves[8])
    assert go("proof", files.proof, other, files.policy).startswith("refused: ")
    stranger = files.policy.with_name("stranger")
    stranger.write_text(policy.replace("quorum consilium/quorum", "group x all witness\nquorum x"))
    assert go("proof", files.proof, files.leaf, stranger).startswith("refused: ")
    assert go("proof", files.proof, files.leaf, files.policy).startswith("entry 7 of ")


def test_go_reads_an_exported_folder_and_a_coordinator_over_http(
    go: Go, files: Files, places: Places
) -> None:
    everything = f"all of {places.federation.log.size}"
    assert go("tiles", places.tiles, files.policy) == everything
    assert go("hashes", places.url, files.policy) == everything
    assert go("tiles", places.url, files.policy) == (
        "refused: tile/entries/000: 403 Forbidden"  # entries are for members
    )


def test_go_refuses_a_folder_in_which_a_file_was_changed(
    go: Go, files: Files, places: Places, tmp_path: Path
) -> None:
    out = tmp_path / "tiles"
    shutil.copytree(places.tiles, out)
    names = [p for p in out.rglob("*") if p.is_file() and not p.name.startswith(".")]
    assert len(names) == 6
    for path in names:
        data = path.read_bytes()
        path.write_bytes(data[:40] + bytes([data[40] ^ 1]) + data[41:] if len(data) > 41 else b"x")
        assert go("tiles", out, files.policy).startswith("refused: "), path
        path.write_bytes(data)
    assert go("tiles", out, files.policy) == f"all of {places.federation.log.size}"


def test_pymerkle_agrees_with_the_checkpoint_and_every_path(
    run: Run, places: Places, tmp_path: Path
) -> None:
    other = InmemoryTree(algorithm="sha256")
    leaf, proof = tmp_path / "l", tmp_path / "p"
    for leaf_bytes in places.federation.leaves:
        other.append_entry(leaf_bytes)
    for index in INDEXES:
        assert run("ledger", "leaf", index, *places.at("tiles"), "--out", leaf).code == 0
        assert run("ledger", "proof", index, *places.at("stranger"), "--out", proof).code == 0
        made = parse_proof(proof.read_bytes())
        checkpoint = parse_checkpoint(parse_note(made.note).text)
        theirs = other.prove_inclusion(index + 1, checkpoint.size)
        assert other.get_root(checkpoint.size) == checkpoint.root
        assert [bytes.fromhex(node) for node in theirs.serialize()["path"]][1:] == list(made.path)
        pymerkle.verify_inclusion(other.get_leaf(index + 1), checkpoint.root, theirs)
        assert base64.b64encode(checkpoint.root).decode() in made.note.decode()
