"""What a coordinator that lies, with up to t-1 members at its side, gets out of honest ones.

What is shown, precisely. (1) Algebra: with t-1 shares of every secret, and the secrets of t-1 members
themselves, each candidate vector of an honest member is explained by exactly one seed of its mask; and
two rounds whose honest vectors differ but have one sum give, under matched randomness, the same view
bit for bit. (2) Conduct: no sequence of questions tried here makes an honest member give both secrets
of one member, shares for two sets of survivors, or anything under another round's context. What is
not shown by test: that AES-CTR, HKDF and X25519 are as good as random.
"""

from __future__ import annotations

import os

import numpy as np
import pytest

from privacy.errors import MaskingRefused
from privacy.masking import keys, member, shamir, streams
from privacy.masking.roster import PublicKeys, survivors_digest
from tests.privacy.masking.play import Play, modular_sum, names, some_vectors


def _played(count: int = 4, until: str = "agree") -> Play:
    play = Play(some_vectors(count))
    for step in ("advertise", "share", "mask", "agree", "unmask"):
        getattr(play, step)()
        if step == until:
            break
    return play


# --- the algebra -----------------------------------------------------------------------------------


def test_t_minus_1_shares_and_members_leave_every_vector_possible() -> None:
    """The coordinator holds y, all pair masks of the victim, and t-1 shares of its seed."""
    play = _played()
    victim, roster = "hospital-00", play.roster
    corrupt = names(4)[1:]  # t = 3: even all the others
    pairs = np.zeros(7, dtype=np.uint64)
    for name in corrupt:
        key = keys.mask_key(
            play.secrets[name].masking, play.advertised[victim].masking, roster.context, (victim, name)
        )  # fmt: skip
        streams.apply(pairs, [streams.Mask(key, add=True)])
    held = {}
    for name in corrupt[: roster.threshold - 1]:
        opened = keys.open_share(
            play.secrets[name].sharing,
            play.advertised[victim].sharing,
            roster.context,
            victim,
            name,
            play.shares[victim].envelopes[name],
        )
        held[roster.number(name)] = opened[: shamir.SHARE_BYTES]
    rest = play.masked[victim].view(np.uint64) - pairs  # x + PRG(seed): one-time pad over x
    own = np.zeros(7, dtype=np.uint64)
    streams.apply(own, [streams.Mask(play.secrets[victim].seed, add=True)])
    np.testing.assert_array_equal((rest - own).view(np.int64), play.vectors[victim])
    # Every candidate seed fits the t-1 shares: the last share that would make it so exists.
    last = roster.number(victim)
    lagrange = shamir.weights((*held, last))
    known = sum(int.from_bytes(s, "big") * w for s, w in zip(held.values(), lagrange, strict=False))
    for _ in range(20):
        candidate = os.urandom(32)
        missing = (int.from_bytes(candidate, "big") - known) * pow(lagrange[-1], -1, shamir.PRIME)
        share = (missing % shamir.PRIME).to_bytes(shamir.SHARE_BYTES, "big")
        assert shamir.combine({**held, last: share}) == candidate


def test_two_rounds_with_one_sum_have_one_view_under_matched_randomness() -> None:
    """Moving weight between two honest vectors is absorbed by the pad between them.

    With pads in place of the key streams (what their security means), the transform x_a + d, x_b - d
    and pad_ab - d maps randomness onto randomness one to one, and the coordinator's view, which holds
    everything but pad_ab and the honest vectors, onto itself.
    """
    generator = np.random.default_rng(5)

    def draw() -> np.ndarray:
        return generator.integers(0, 2**64, 5, dtype=np.uint64)

    here = names(4)
    x = {name: draw() for name in here}
    own = {name: draw() for name in here}
    pad = {(a, b): draw() for a in here for b in here if a < b}

    def view(vectors: dict[str, np.ndarray], pads: dict[tuple[str, str], np.ndarray]) -> bytes:
        masked = {}
        for a in here:
            y = vectors[a] + own[a]
            for b in here:
                if a < b:
                    y = y + pads[a, b]
                elif b < a:
                    y = y - pads[b, a]
            masked[a] = y
        seen = [masked[a] for a in here] + [own[a] for a in here]
        corrupt = [pads[p] for p in pads if p != (here[0], here[1])]
        return b"".join(
            part.tobytes() for part in (*seen, *corrupt, vectors[here[2]], vectors[here[3]])
        )

    d = draw()
    moved = {**x, here[0]: x[here[0]] + d, here[1]: x[here[1]] - d}
    matched = {**pad, (here[0], here[1]): pad[here[0], here[1]] - d}
    assert view(x, pad) == view(moved, matched)
    assert not np.array_equal(x[here[0]], moved[here[0]])


def test_what_opens_the_sum_opens_no_single_vector() -> None:
    play = Play(some_vectors(5))
    play.advertise()
    play.share()
    play.mask(names(4))
    play.agree()
    play.unmask()
    opened = play.opened()
    np.testing.assert_array_equal(
        play.result(), modular_sum(play.vectors[name] for name in play.masked)
    )
    for name in play.masked:
        alone = play.masked[name].view(np.uint64).copy()
        masks = [streams.Mask(opened.seeds[name], add=False)]
        key = keys.mask_key(
            opened.keys["hospital-04"],
            play.advertised[name].masking,
            play.roster.context,
            ("hospital-04", name),
        )
        streams.apply(alone, [*masks, streams.Mask(key, add=False)])
        assert not np.array_equal(alone.view(np.int64), play.vectors[name])


# --- the conduct -----------------------------------------------------------------------------------


def test_different_survivors_for_different_members_are_refused_at_the_consistency_round() -> None:
    """Half of them are told that hospital-03 dropped out, to get its key from them."""
    play = _played(until="mask")
    sharing, everybody = tuple(play.shares), tuple(play.masked)
    fewer = everybody[:3]
    told = {
        "hospital-00": fewer,
        "hospital-01": fewer,
        "hospital-02": everybody,
        "hospital-03": everybody,
    }
    for name, survivors in told.items():
        play.secrets[name], play.agreed[name] = member.agree(
            play.secrets[name], play.roster, sharing, survivors
        )
    for name, survivors in told.items():
        with pytest.raises(
            MaskingRefused, match="2 members agree to these survivors; 3 must"
        ) as no:
            play.unmasked(name, survivors=survivors)
        assert no.value.fault == "disputed"
        assert play.secrets[name].revealed == b""


def test_a_digest_that_the_coordinator_made_up_counts_for_nobody() -> None:
    """Agreements count by member of the sum; the caller checks each one's signature."""
    play = _played()
    digest = survivors_digest(play.context, play.masked)
    forged = {"hospital-00": digest, "not-a-hospital": digest, "another": digest}
    with pytest.raises(MaskingRefused, match="1 members agree"):
        play.unmasked("hospital-00", agreements=forged)


def test_both_secrets_of_one_member_are_not_given() -> None:
    play = _played()
    with pytest.raises(MaskingRefused, match="both secrets of hospital-03") as caught:
        play.unmasked("hospital-00", keys_of=("hospital-03",))
    assert caught.value.fault == "both_secrets"


def test_both_secrets_are_not_given_in_two_questions_either() -> None:
    play = _played()
    play.unmask(("hospital-00",))
    with pytest.raises(MaskingRefused, match="did not agree to these survivors") as caught:
        play.unmasked("hospital-00", survivors=names(3))
    assert caught.value.fault == "other_survivors"
    with pytest.raises(MaskingRefused, match="other survivors were agreed to"):
        member.agree(play.secrets["hospital-00"], play.roster, tuple(play.shares), names(3))


def test_a_member_asked_the_same_again_answers_the_same() -> None:
    play = _played(until="unmask")
    again, revealed = play.unmasked("hospital-00")
    assert revealed == play.revealed["hospital-00"]
    assert again == play.secrets["hospital-00"]


def test_secrets_of_who_handed_in_no_shares_are_not_given() -> None:
    play = Play(some_vectors(5))
    play.advertise()
    for step in ("share", "mask", "agree"):
        getattr(play, step)(names(4))
    with pytest.raises(MaskingRefused, match="hospital-04 handed in no shares"):
        play.unmasked("hospital-00", keys_of=("hospital-04",))


def test_survivors_outside_the_sharing_are_refused() -> None:
    play = _played(until="mask")
    with pytest.raises(MaskingRefused, match="stranger cannot take part"):
        member.agree(
            play.secrets["hospital-00"],
            play.roster,
            tuple(play.shares),
            (*play.masked, "stranger"),
        )


def test_keys_replaced_on_the_way_are_refused() -> None:
    play = _played(until="advertise")
    mine = play.advertised | {"hospital-00": PublicKeys(b"\x09" + bytes(31), b"\x0a" + bytes(31))}
    with pytest.raises(MaskingRefused, match="keys of hospital-00 are not those it made"):
        member.share(play.secrets["hospital-00"], play.roster, mine, os.urandom)
    twice = play.advertised | {"hospital-01": play.advertised["hospital-02"]}
    with pytest.raises(MaskingRefused, match="advertised twice"):
        member.share(play.secrets["hospital-00"], play.roster, twice, os.urandom)


def test_a_key_that_everybody_knows_is_refused() -> None:
    play = _played(until="advertise")
    small = play.advertised | {"hospital-01": PublicKeys(bytes(32), b"\x01" + bytes(31))}
    with pytest.raises(MaskingRefused, match="not one with which a secret can be agreed") as no:
        member.share(play.secrets["hospital-00"], play.roster, small, os.urandom)
    assert no.value.fault == "wrong_keys"


def test_envelopes_of_another_round_do_not_open() -> None:
    """The same secrets, so only the context stands between the rounds."""
    play = _played()
    other = Play(play.vectors, context=bytes(32))
    for name, secrets in play.secrets.items():
        other.secrets[name] = member.Secrets(
            bytes(32), name, secrets.sharing, secrets.masking, secrets.seed
        )
        other.advertised[name] = play.advertised[name]
    other.share()
    _, revealed = play.unmasked("hospital-00", envelopes=other.envelopes_for("hospital-00"))
    assert revealed.unreadable == names(4)
    assert not revealed.seeds


def test_agreements_of_another_round_do_not_count() -> None:
    play = _played()
    replayed = {name: survivors_digest(bytes(32), play.masked) for name in play.masked}
    with pytest.raises(MaskingRefused, match="1 members agree"):
        play.unmasked("hospital-00", agreements=replayed)


def test_secrets_of_another_round_are_not_used() -> None:
    play = _played(until="advertise")
    other = Play(play.vectors, context=bytes(32), secrets=play.secrets, advertised=play.advertised)
    with pytest.raises(MaskingRefused, match="made for another round"):
        other.share()


def test_a_second_vector_is_not_masked_in_one_round() -> None:
    play = _played(until="mask")
    with pytest.raises(MaskingRefused, match="their difference would show") as caught:
        member.mask(
            play.secrets["hospital-00"],
            play.roster,
            play.advertised,
            tuple(play.shares),
            play.vectors["hospital-00"] + 1,
        )
    assert caught.value.fault == "other_vector"
