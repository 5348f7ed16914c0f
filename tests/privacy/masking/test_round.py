from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy.errors import MaskingRefused, SharesMissing
from privacy.masking import streams
from privacy.masking.member import ENVELOPE_BYTES, Secrets
from privacy.masking.roster import Roster, threshold
from tests.privacy.masking.play import CONTEXT, Play, modular_sum, names, some_vectors


def test_the_threshold_is_two_thirds_rounded_down_and_one_more() -> None:
    assert [threshold(n) for n in (3, 4, 5, 6, 9, 32, 36)] == [3, 3, 4, 5, 7, 22, 25]


@settings(max_examples=20, deadline=None)
@given(st.integers(3, 7), st.data())
def test_the_sum_over_whoever_is_left_is_exact(count: int, data: st.DataObject) -> None:
    """Members drop out at every phase, as many as the threshold allows."""
    value = st.integers(-(2**63), 2**63 - 1)
    vectors = {
        name: np.array(data.draw(st.lists(value, min_size=3, max_size=3)), dtype=np.int64)
        for name in names(count)
    }
    play, least = Play(vectors), threshold(count)
    here = tuple(vectors)
    for phase in ("advertise", "share", "mask", "agree", "unmask"):
        left = data.draw(st.integers(least, len(here)))
        here = tuple(sorted(data.draw(st.permutations(here))[:left]))
        getattr(play, phase)(here)
    expected = modular_sum(vectors[name] for name in play.masked)
    np.testing.assert_array_equal(play.result(), expected)


@pytest.mark.parametrize("phase", ["advertise", "share", "mask", "agree", "unmask"])
def test_a_dropout_at_each_phase_leaves_an_exact_sum(phase: str) -> None:
    vectors = some_vectors(4)
    play, here = Play(vectors), names(4)
    for step in ("advertise", "share", "mask", "agree", "unmask"):
        if step == phase:
            here = tuple(name for name in here if name != "hospital-02")
        getattr(play, step)(here)
    expected = modular_sum(vectors[name] for name in play.masked)
    np.testing.assert_array_equal(play.result(), expected)
    assert ("hospital-02" in play.masked) == (phase in ("agree", "unmask"))


@pytest.mark.parametrize("phase", ["share", "mask", "agree"])
def test_fewer_than_the_threshold_end_the_round_at_each_phase(phase: str) -> None:
    play = Play(some_vectors(4))
    for step in ("advertise", "share", "mask", "agree", "unmask"):
        if step == phase:
            with pytest.raises(MaskingRefused) as caught:
                getattr(play, step)()
            assert caught.value.fault == "too_few"
            return
        getattr(play, step)(names(2) if _before(step) == phase else None)


def _before(step: str) -> str:
    return {"advertise": "share", "share": "mask", "mask": "agree"}.get(step, "")


def test_fewer_shares_than_the_threshold_open_nothing() -> None:
    play = Play(some_vectors(4))
    for step in ("advertise", "share", "mask", "agree"):
        getattr(play, step)()
    play.unmask(names(2))
    with pytest.raises(SharesMissing, match="2 shares of the secret of hospital-00") as caught:
        play.result()
    assert (caught.value.held, caught.value.needed) == (2, 3)


def test_a_wrong_share_changes_no_sum() -> None:
    """Its owner committed to the secret, so other shares are taken."""
    play = Play(some_vectors(6))
    for step in ("advertise", "share", "mask", "agree", "unmask"):
        getattr(play, step)()
    liar = play.revealed["hospital-03"]
    wrong = {name: bytes(66) for name in liar.seeds}
    play.revealed["hospital-03"] = liar._replace(seeds=wrong)
    np.testing.assert_array_equal(play.result(), modular_sum(play.vectors.values()))


def test_a_spoilt_envelope_hides_its_own_shares_only() -> None:
    play = Play(some_vectors(4))
    for step in ("advertise", "share", "mask", "agree"):
        getattr(play, step)()
    envelopes = play.envelopes_for("hospital-00")
    envelopes["hospital-02"] = bytes(ENVELOPE_BYTES)
    _, revealed = play.unmasked("hospital-00", envelopes=envelopes)
    assert revealed.unreadable == ("hospital-02",)
    assert set(revealed.seeds) == set(names(4)) - {"hospital-02"}


def test_secrets_survive_being_written_down() -> None:
    play = Play(some_vectors(3))
    for step in ("advertise", "share", "mask", "agree", "unmask"):
        getattr(play, step)()
        for secrets in play.secrets.values():
            assert Secrets.decode(secrets.encode()) == secrets


def test_the_same_vector_may_be_masked_again_and_gives_the_same_bytes() -> None:
    play = Play(some_vectors(3))
    play.advertise()
    play.share()
    play.mask()
    first = dict(play.masked)
    play.mask()
    for name, masked in first.items():
        np.testing.assert_array_equal(play.masked[name], masked)


@pytest.mark.parametrize("size", [1, 2, 8191, 8192, 8193, 300_001])
def test_threads_and_pieces_change_no_bit_of_a_mask(size: int) -> None:
    masks = [streams.Mask(bytes([k]) * 32, add=k % 2 == 0) for k in range(3)]
    one, four = np.zeros(size, dtype=np.uint64), np.zeros(size, dtype=np.uint64)
    streams.apply(one, masks, threads=1)
    streams.apply(four, masks, threads=4)
    whole = [
        np.frombuffer(streams.keystream(m.key).update(bytes(8 * size)), dtype="<u8") for m in masks
    ]
    np.testing.assert_array_equal(one, whole[0] - whole[1] + whole[2])
    np.testing.assert_array_equal(one, four)


def test_a_roster_of_two_is_refused() -> None:
    with pytest.raises(MaskingRefused, match="3 to 64 members, not 2"):
        Roster(CONTEXT, names(2))


def test_secrets_of_a_member_whose_name_is_no_text_are_refused() -> None:
    with pytest.raises(MaskingRefused, match="name no member"):
        Secrets.decode(bytes(7 * 32) + b"\xff")
