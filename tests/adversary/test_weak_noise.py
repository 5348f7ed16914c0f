"""A hospital's software adds less noise than its plan charges for, and somebody looks.

The vectors of a real round cannot show it: nobody outside knows the sum without noise. The software can be run
on rows that everybody knows, and then it does.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from consilium.actions.audit.attack_target import target_in
from consilium.actions.audit.attacking import Attacked, attack_with_canaries
from consilium.actions.reading import offline_view
from ledger.entries.operations.values import BlobRef
from ledger.formats.value import replace
from privacy.noise import SecureRandom
from tests.adversary.registry import attack
from tests.adversary.world import World
from tests.federation import node_of

RUNS = 400
AUDITOR = "an auditor who runs the software"


def attacked(world: World, experiment: str, home: Path) -> Attacked:
    world.federation.persist(home).close()
    with offline_view(home) as view:
        target = target_in(view, experiment)
    return attack_with_canaries(target, "basel-heart", RUNS, lambda done, total: None)


def halved(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lie: every generator of the node gives half of what it is asked for."""
    true = SecureRandom.gaussian_integers

    def half(self: SecureRandom, noise_sd: int, size: int) -> npt.NDArray[np.int64]:
        return true(self, noise_sd // 2, size)

    monkeypatch.setattr(SecureRandom, "gaussian_integers", half)


@attack(
    name="a hospital's software adds half the noise that its plan charges",
    exposed_by=AUDITOR,
    evidence="canary runs: observed mu above the proven one, at 99.99 % confidence",
)
def test_half_the_noise_shows_in_canary_runs(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = world.federation.start(epsilon="4")
    honest = attacked(world, experiment, tmp_path / "before")
    assert not honest.contradicts, honest.says
    world.attack_begins()
    halved(monkeypatch)
    found = attacked(world, experiment, tmp_path / "after")
    assert found.contradicts
    assert found.low > found.bound == honest.bound
    world.exposed(AUDITOR)
    said = found.audited(BlobRef(sha256="0" * 64, bytes=1))
    world.federation.say(node_of("bern"), said)
    assert world.hospital("basel").follow()[-1].outcome.applied


@attack(
    name="a hospital puts what contradicts the proof on record as proved",
    exposed_by="everybody's fold",
    evidence="void: finding_mismatch; its own figure above its own bound",
)
def test_a_finding_that_contradicts_itself_is_void(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = world.federation.start(epsilon="4")
    halved(monkeypatch)
    found = attacked(world, experiment, tmp_path / "home")
    world.attack_begins()
    true = found.audited(BlobRef(sha256="0" * 64, bytes=1))
    lie = replace(true, finding="as_proved")
    world.federation.say(node_of("basel"), lie, void="finding_mismatch")  # the lie
    assert world.hospital("bern").follow()[-1].outcome.void == "finding_mismatch"
    world.exposed("everybody's fold")
