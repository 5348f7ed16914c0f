"""Proofs, leaves, policies and tiles, from every kind of place that holds a log."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import httpx
import pytest

from ledger.formats.checkpoint import cosign, open_checkpoint
from ledger.formats.merkle import leaf_hash, verify_inclusion
from ledger.formats.note import COSIGNATURE_V1, VerifierKey
from ledger.formats.proof import parse_proof
from ledger.formats.tile_folder import folder
from ledger.formats.tiles import TileReader
from ledger.formats.tlog_policy import parse_policy
from tests.consilium.conftest import Run
from tests.consilium.places import EVERYWHERE, HOSPITALS, WITH_ENTRIES, Places
from tests.federation import node_of
from tests.ledger.formats.worked import WITNESS_KEY
from tests.patience import PATIENCE_S


@pytest.mark.parametrize("kind", EVERYWHERE)
def test_a_proof_from_every_place_holds_under_the_policy_from_every_place(
    run: Run, places: Places, tmp_path: Path, kind: str
) -> None:
    proof, leaf, policy = tmp_path / "7.tlog-proof", tmp_path / "7.leaf", tmp_path / "policy"
    said = run("ledger", "proof", 7, *places.at(kind), "--out", proof)
    assert said.code == 0, said.err
    leaf.write_bytes(places.federation.leaves[7])
    assert run("ledger", "policy", *places.at(kind), "--out", policy).code == 0
    checked = run("ledger", "check", proof, "--leaf", leaf, "--policy", policy, "--json")
    assert checked.code == 0, checked.err
    shown = json.loads(checked.out)
    assert (shown["index"], shown["size"]) == (7, places.federation.log.size)
    assert {name.rsplit("/", 1)[1] for name in shown["cosigned"]} == set(map(node_of, HOSPITALS))


@pytest.mark.parametrize("kind", WITH_ENTRIES)
def test_a_leaf_from_every_place_is_the_bytes_that_the_tree_commits_to(
    run: Run, places: Places, tmp_path: Path, kind: str
) -> None:
    for index in (0, 255, 256, 299):
        out = tmp_path / f"{index}.leaf"
        said = run("ledger", "leaf", index, *places.at(kind), "--out", out)
        assert said.code == 0, said.err
        assert out.read_bytes() == places.federation.leaves[index]
        assert leaf_hash(out.read_bytes()).hex() in said.out


def test_all_places_give_the_same_policy_and_it_names_everything(run: Run, places: Places) -> None:
    texts = {run("ledger", "policy", *places.at(kind)).out for kind in EVERYWHERE}
    assert len(texts) == 1
    text = texts.pop()
    policy = parse_policy(text.encode())
    assert [log.key.name for log in policy.logs] == [places.federation.origin]
    assert len(policy.witnesses) == 3
    assert f"group basel any witness/{node_of('basel')}\n" in text
    assert policy.quorum is not None
    assert policy.groups[-1].threshold == 3  # floor(2*3/3) + 1
    assert f"quorum {policy.quorum}\n" in text


@pytest.mark.parametrize("kind", WITH_ENTRIES)
def test_list_and_show_read_every_place(run: Run, places: Places, kind: str) -> None:
    rows = json.loads(run("ledger", "list", *places.at(kind), "--json").out)
    assert len(rows) == places.federation.log.size
    shown = json.loads(run("ledger", "show", 0, *places.at(kind), "--json").out)
    assert shown["operation"] == "federation.founded"


def test_a_stranger_gets_no_entry_from_a_coordinator_and_is_told_what_to_do(
    run: Run, places: Places, tmp_path: Path
) -> None:
    for command in (("leaf", 7, "--out", tmp_path / "x"), ("list",), ("show", 7)):
        said = run("ledger", *command, *places.at("stranger"))
        assert said.code == 2
        assert "hands out entries to members alone: name a member's home with --home" in said.err
    assert run("ledger", "checkpoint", *places.at("stranger")).code == 0


def test_a_home_of_another_federation_is_no_members_home_here(
    run: Run, places: Places, tmp_path: Path
) -> None:
    """Its owner is a stranger: proofs and the coordinator's policy, no entries."""
    other = tmp_path / "member"
    shutil.copytree(places.member, other)
    config = json.loads((other / "member.json").read_bytes())
    config["federation"] = "ab" * 32
    (other / "member.json").write_bytes(
        json.dumps(config, sort_keys=True, separators=(",", ":")).encode()
    )
    at = ("--at", places.url, "--home", other)
    assert run("ledger", "proof", 7, *at, "--out", tmp_path / "p").code == 0
    assert run("ledger", "policy", *at).out == run("ledger", "policy", *places.at("home")).out
    said = run("ledger", "leaf", 7, *at, "--out", tmp_path / "l")
    assert said.code == 2
    assert "hands out entries to members alone" in said.err


def test_a_false_leaf_a_changed_proof_and_a_missing_witness_end_with_one(
    run: Run, places: Places, tmp_path: Path
) -> None:
    proof, leaf, policy = tmp_path / "p", tmp_path / "l", tmp_path / "policy"
    run("ledger", "proof", 7, *places.at("home"), "--out", proof)
    run("ledger", "policy", *places.at("home"), "--out", policy)

    def check() -> tuple[int, str]:
        said = run("ledger", "check", proof, "--leaf", leaf, "--policy", policy)
        return said.code, said.err

    leaf.write_bytes(places.federation.leaves[8])
    assert check() == (1, f"consilium: REFUTED: inclusion of leaf 7 in size "
                          f"{places.federation.log.size}: the proof leads to another root\n")  # fmt: skip
    leaf.write_bytes(places.federation.leaves[7])
    good = proof.read_bytes()
    proof.write_bytes(good[: good.rindex(b"\xe2\x80\x94")])
    code, message = check()
    assert code == 1
    assert "REFUTED" in message
    assert "2 organisations cosigned where 3 must" in message
    proof.write_bytes(b"hello\n")
    code, message = check()
    assert code == 2
    assert "has no empty line before the checkpoint" in message


def test_an_export_goes_on_where_it_was_cut_off_and_refuses_other_bytes(
    run: Run, places: Places, tmp_path: Path
) -> None:
    out = tmp_path / "tiles"
    first = json.loads(run("ledger", "tiles", *places.at("member"), "--out", out, "--json").out)
    assert first["kept"] == 0
    files = {p.relative_to(out) for p in out.rglob("*") if p.is_file()}
    same = {p.relative_to(places.tiles) for p in places.tiles.rglob("*") if p.is_file()}
    assert files == same
    for name in ("checkpoint", "tile/0/000", f"tile/entries/{places.edge}"):
        assert (out / name).read_bytes() == (places.tiles / name).read_bytes()
    (out / "checkpoint").unlink()
    (out / f"tile/entries/{places.edge}").unlink()
    again = json.loads(run("ledger", "tiles", *places.at("member"), "--out", out, "--json").out)
    assert (again["written"], again["kept"]) == (1, first["written"] - 1)
    other = bytearray((out / "tile/entries/000").read_bytes())
    other[9] ^= 1
    (out / "tile/entries/000").write_bytes(other)
    for kind in ("home", "member"):
        said = run("ledger", "tiles", *places.at(kind), "--out", out)
        assert said.code == 2
        assert "tile/entries/000" in said.err
    assert (out / "tile/entries/000").read_bytes() == other


def test_an_exported_folder_verifies_like_any_copy(run: Run, places: Places) -> None:
    said = run("audit", "verify", "--at", places.tiles, "--trust", places.federation.id, "--json")
    assert said.code == 0, said.out
    (report,) = json.loads(said.out)["copies"]
    assert report["anchor"] == "trusted"
    assert report["steps"]["7"] == "proved"


def test_a_changed_file_of_a_folder_is_found_when_it_is_read(
    run: Run, places: Places, tmp_path: Path
) -> None:
    out = tmp_path / "tiles"
    run("ledger", "tiles", *places.at("home"), "--out", out)
    data = bytearray((out / "tile/0/000").read_bytes())
    data[0] ^= 1
    (out / "tile/0/000").write_bytes(data)
    said = run("ledger", "proof", 7, "--at", out, "--out", tmp_path / "x")
    assert said.code == 2
    assert "tile/0/000: does not hash to its place in the tile above" in said.err
    assert run("audit", "verify", "--at", out).code == 1


def test_a_coordinator_serves_the_bytes_that_are_exported(places: Places) -> None:
    reader = TileReader(folder(places.tiles), places.log)
    for name in ("tile/0/000", f"tile/0/{places.edge}", "tile/1/000.p/1"):
        answer = httpx.get(f"{places.url}/{name}", timeout=PATIENCE_S)
        assert answer.status_code == 200
        assert answer.content == (places.tiles / name).read_bytes()
        assert answer.headers["content-type"] == "application/octet-stream"
        assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
    checkpoint = httpx.get(f"{places.url}/checkpoint", timeout=PATIENCE_S)
    assert checkpoint.content == reader.note
    assert checkpoint.headers["content-type"] == "text/plain; charset=utf-8"
    assert checkpoint.headers["cache-control"] == "no-store"
    for name in (
        "tile/0/002",
        "tile/0/01",
        "tile/0/000.p/256",
        "tile/0/001",
        "tile/64/000",
        "tile/x",
    ):
        answer = httpx.get(f"{places.url}/{name}", timeout=PATIENCE_S)
        assert answer.status_code == 404, name
        assert answer.headers["cache-control"] == "no-store"
    entries = httpx.get(f"{places.url}/tile/entries/000", timeout=PATIENCE_S)
    assert (entries.status_code, entries.json()["error"]) == (403, "UnknownKey")


def test_a_checkpoint_that_somebody_outside_cosigned_carries_the_proof(
    run: Run, places: Places, tmp_path: Path
) -> None:
    outside = VerifierKey("auditor.example/witness", WITNESS_KEY.public, COSIGNATURE_V1)
    note = (places.tiles / "checkpoint").read_bytes()
    bare = note.split(b"\n\n")[0] + b"\n\n" + note.split(b"\n\n")[1].split(b"\n")[0] + b"\n"
    kept = tmp_path / "cosigned"
    kept.write_bytes(bare + cosign(bare, WITNESS_KEY, outside.name, int(time.time())))
    proof, leaf, policy = tmp_path / "p", tmp_path / "l", tmp_path / "policy"
    run("ledger", "leaf", 7, *places.at("home"), "--out", leaf)
    said = run("ledger", "policy", *places.at("home"), "--witness", outside, "--out", policy)
    assert said.code == 0, said.err
    run("ledger", "proof", 7, *places.at("home"), "--out", proof)
    assert run("ledger", "check", proof, "--leaf", leaf, "--policy", policy).code == 1
    run("ledger", "proof", 7, *places.at("home"), "--out", proof, "--checkpoint", kept)
    said = run("ledger", "check", proof, "--leaf", leaf, "--policy", policy, "--json")
    assert said.code == 0, said.err
    assert outside.name in json.loads(said.out)["cosigned"]
    tiles = tmp_path / "tiles"
    assert (
        run("ledger", "tiles", *places.at("home"), "--out", tiles, "--checkpoint", kept).code == 0
    )
    assert outside.name in (tiles / "checkpoint").read_text()
    assert run("audit", "verify", "--at", tiles).code == 0


def test_a_proof_reads_and_holds_without_any_of_our_commands(
    run: Run, places: Places, tmp_path: Path
) -> None:
    out = tmp_path / "p"
    run("ledger", "proof", 299, *places.at("stranger"), "--out", out)
    proof = parse_proof(out.read_bytes())
    checkpoint = open_checkpoint(proof.note, places.log)
    verify_inclusion(
        index=299,
        size=checkpoint.size,
        leaf=leaf_hash(places.federation.leaves[299]),
        proof=proof.path,
        root=checkpoint.root,
    )


def test_an_index_beyond_the_log_is_bad_input(run: Run, places: Places, tmp_path: Path) -> None:
    for kind in EVERYWHERE:
        said = run("ledger", "proof", 99999, *places.at(kind), "--out", tmp_path / "x")
        assert said.code == 2
        assert "has no entry 99999" in said.err
