"""What a privacy certificate says in words: trust, hazards, and what it does not say.

Headings after NIST SP 800-226 (March 2025). Each hazard names how the product meets it, or that it is
open, and where a reader sees that for himself.
"""

from __future__ import annotations

from typing import Literal

from audit.reports.data_use_form import Part
from ledger.entries.operations.plans import Plan


class Hazard(Part):
    """A common way in which a privacy claim fails, and how it stands here.

    Attributes:
        state: ``met`` by construction, ``partly`` with the rest said, ``open`` for the reader to judge.
        how: what was done, or what is left.
    """

    name: str
    state: Literal["met", "partly", "open"]
    how: str


_LOCAL = (
    "Rows never leave a hospital. Each hospital's own node clips and adds its full noise before "
    "anything leaves, so the promise holds against everybody outside that hospital: the coordinator, "
    "the other hospitals, the researcher, the public, and all of them together."
)
_TOGETHER = (
    "Rows never leave a hospital, and its vector leaves only under masks that open in the sum with the "
    "others'. The noises of {shares} hospitals together keep the promise, so it holds against the "
    "coordinator, the researcher, the public and up to {colluders} of the hospitals in a sum, all of "
    "them together. It does not hold against more hospitals that tell their noise, or add less of it."
)
TRUST: tuple[str, ...] = (
    "It does not hold against the hospital itself: whoever administers its machines can read its rows.",
    "It rests on the node running the published software, and on the hospital registering the rows and "
    "the patients' identifiers that it says. The ledger holds its signature on that, not a proof.",
    "Nobody has to trust the coordinator for privacy: the node checks approval and budget itself, from "
    "its own verified copy, before it reads a row.",
)


def trust_in(plan: Plan) -> tuple[str, ...]:
    """Whom the promise of a plan holds against, and what it rests on."""
    if plan.noise_shares == 1:
        return (_LOCAL, *TRUST)
    colluders = plan.quorum - plan.noise_shares
    return (_TOGETHER.format(shares=plan.noise_shares, colluders=colluders), *TRUST)


HAZARDS: tuple[Hazard, ...] = (
    Hazard(
        name="Spending without end: many analyses of the same patients",
        state="met",
        how="A patient's cell has one promise for ever, over all datasets, researchers and "
        "experiments. A filter that stays valid for adaptive requests refuses what does not fit; "
        "nothing refills it, unless the hospital declared a period before its first use: the table and "
        "the limits below say where.",
    ),
    Hazard(
        name="Counting rows instead of people",
        state="partly",
        how="Where the table names patients, all rows of one are a single unit. Where it does not, a "
        "person with several rows is protected less; the unit is printed above.",
    ),
    Hazard(
        name="One person in several hospitals",
        state="partly",
        how="Hospitals cannot compare patients. The table above shows what one, two and three cost.",
    ),
    Hazard(
        name="Constants taken from private rows: means, ranges, vocabularies, missing values",
        state="met",
        how="Columns are mapped by bounds and codes that the schema declares in public.",
    ),
    Hazard(
        name="Metrics, baselines and model choice that nobody charges",
        state="met",
        how="Measures leave as noisy histograms that are charged; a hospital's own baseline is "
        "charged; each candidate is an experiment, charged in full.",
    ),
    Hazard(
        name="Arithmetic: floating point and weak randomness",
        state="met",
        how="What leaves lies on an integer grid. Noise comes from a cryptographic generator keyed by "
        "the operating system; sampling compares its bits with a whole-number threshold.",
    ),
    Hazard(
        name="A sampling analysis that the program does not match",
        state="met",
        how="A step is a full batch, or draws every patient by itself (Poisson); empty batches count.",
    ),
    Hazard(
        name="Side channels: time, size, failures, log lines",
        state="partly",
        how="Sizes are fixed by the plan and refusals are judged before rows are read. How long a round "
        "took can be read from the ledger, and may tell something of the number of rows.",
    ),
    Hazard(
        name="Models of single rounds",
        state="met",
        how="Every round's sum is a release of its own in the figures above; members may see them.",
    ),
    Hazard(
        name="Errors in the programs",
        state="open",
        how="The noise that was drawn cannot be seen from outside. Each node tests its code on made-up "
        "rows before it trains, and anybody may attack it there (known answers, canary runs, twins of the "
        "model); what was found stands below. None of that is a proof.",
    ),
    Hazard(
        name="Usefulness and fairness",
        state="open",
        how="Clipping and noise weigh most on small groups. This certificate says nothing about how "
        "well the model serves anybody.",
    ),
)

RENEWING = (
    "The promise to {cell} holds for each period of {days} days, and not for ever: a patient who stays is "
    "promised it again in each. All periods together are weaker than one, and are shown beside it."
)
ONE_BY_ONE = (
    "Patients of {cell} are accounted for one by one inside the hospital: its node clips each patient's "
    "gradients to what is left of that patient's promise, and tells nobody how much that is. What is printed "
    "for the cell, its steps included, is the most that any of them can have lost. That the node kept the accounts is not "
    "recomputable from here; the ledger holds its word."
)
LIMITS: tuple[str, ...] = (
    "It bounds what the model and its rounds add to anyone's knowledge of one patient. It does not say "
    "that nothing can be concluded about patients as a group: that is what a model is for.",
    "Delta is the part of the probability for which epsilon makes no promise.",
    "Replace-one is what one patient's rows could change if they were exchanged for others; it is not "
    "what hospitals promised, and is printed for comparison with systems that do.",
)
