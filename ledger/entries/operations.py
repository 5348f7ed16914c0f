"""The vocabulary: everything that can happen in a federation, as closed, typed facts.

Each operation is a frozen model whose ``type`` is a past-tense fact. The vocabulary is closed per
protocol version: an unknown type, field or enumeration value is refused at the door, never ignored.
Operations hold integers, lowercase hexadecimal, slugs and closed enumerations only. Free text, names
and floating-point numbers never enter an entry: they live in blobs named by their SHA-256, which can
be erased, and a log cannot.

Units: times are POSIX milliseconds (``*_ms``); epsilon is in millionths (``*_micro``); delta in
10^-15 (``delta_e15``); privacy charges in 2^-40 of their lane (``g``, ``r``); sensitivities and noise
deviations in grid units of 2^-20.

The models say what an operation looks like. Whether it takes effect is decided by the fold.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

MAX_INT = 2**53 - 1

Slug = Annotated[str, StringConstraints(pattern=r"^[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?$")]
# Shorter than a slug, so that "<organisation>-train" is one: cells carry their hospital's name.
Organisation = Annotated[str, StringConstraints(pattern=r"^[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?$")]
Hash = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
KeyId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
Share = Annotated[str, StringConstraints(pattern=r"^0[01][0-9a-f]{130}$")]
Signature = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{128}$")]
Count = Annotated[int, Field(ge=0, le=MAX_INT)]
Positive = Annotated[int, Field(ge=1, le=MAX_INT)]
# A framed leaf in base64: what an entry carries of another one. Two of them must fit into an entry.
LeafText = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9+/]+={0,2}$", max_length=32_000)]
TimeMs = Annotated[int, Field(ge=0, le=MAX_INT)]

Role = Literal["coordinator", "node", "steward", "researcher", "auditor"]
RoundKind = Literal["train", "evaluate", "baseline"]
Purpose = Literal["train", "evaluate", "baseline_train", "baseline_evaluate"]
Engine = Literal["exact", "fast"]

EMPTY_HASH = "0" * 64


class Value(BaseModel):
    """A frozen, strict part of an operation: no coercion, no unknown field."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class PublicKey(Value):
    """A public key with its algorithm id; the id leaves room for algorithms to come."""

    alg: Literal["ed25519", "x25519"]
    public: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


def _signs(key: PublicKey) -> PublicKey:
    if key.alg != "ed25519":
        raise ValueError("a key that signs is an ed25519 key")
    return key


def _seals(key: PublicKey) -> PublicKey:
    if key.alg != "x25519":
        raise ValueError("a key that seals is an x25519 key")
    return key


VerifyKey = Annotated[PublicKey, AfterValidator(_signs)]
SealKey = Annotated[PublicKey, AfterValidator(_seals)]


class MemberKeys(Value):
    """The separate keys of one member: a chain, a witness, HTTP requests, sealed blobs."""

    entry: VerifyKey
    request: VerifyKey
    sealing: SealKey
    witness: VerifyKey | None


class BlobRef(Value):
    """A blob by the SHA-256 and length of its plaintext."""

    sha256: Hash
    bytes: Count


class Policy(Value):
    """What the federation agreed on; a change takes effect at the k-th endorsement under the old one.

    Attributes:
        endorsements: k, the distinct organisations a change needs (an invitation needs at most
            all that have a steward).
        max_lag: entries after its ``seen`` at which a permission is too old to take effect.
        max_delay_ms: the same in ``log_time``.
        max_age_ms: the age of cosignatures beyond which a node gives no permission.
        skew_ms: how far ``log_time`` may be from a node's clock.
    """

    endorsements: Positive
    max_lag: Positive
    max_delay_ms: Positive
    max_age_ms: Positive
    skew_ms: Positive


class Seat(Value):
    """One handle that an invitation lets in, and as what."""

    handle: Slug
    role: Literal["node", "steward", "researcher", "auditor"]


class Invitation(Value):
    """Lets an organisation's people in: a one-time public key bound to their handles."""

    organisation: Organisation
    key: VerifyKey
    seats: Annotated[tuple[Seat, ...], Field(min_length=1, max_length=16)]


# --- the federation and its members -------------------------------------------------------------


class FederationFounded(Value):
    """Entry 0. Its hash is the federation's id; it is final by definition."""

    type: Literal["federation.founded"]
    name: Slug
    policy: Policy
    organisation: Organisation
    keys: MemberKeys
    log_key: VerifyKey
    invitations: Annotated[tuple[Invitation, ...], Field(max_length=256)]


class Predecessor(Value):
    """A log that is succeeded: its id, its last final checkpoint, and the digest of the state there."""

    federation: Hash
    size: Positive
    root: Hash
    state: Hash


class SuccessionEndorsement(Value):
    """A steward's signature (kind ``succession``) under the genesis of a successor."""

    steward: Slug
    signature: Signature


class CarriedMember(Value):
    """A member of the old federation, under the keys that it has there; none but the coordinator's."""

    handle: Slug
    organisation: Organisation
    role: Literal["node", "steward", "researcher", "auditor"]
    keys: MemberKeys
    card: Hash | None
    active: bool
    expelled: bool
    disputed_since_ms: TimeMs | None


class CarriedKey(Value):
    """An entry key of the old federation that signs nothing more."""

    member: Slug
    public: Hash


class MemberJoined(Value):
    """A member takes its seat; the one entry that is signed by a key it enrols.

    Attributes:
        invitation: id of the invitation's one-time key.
        proof: that key's signature over the federation id, handle and keys (kind ``invitation``).
        card: salted commitment to names and contact, or null.
    """

    type: Literal["member.joined"]
    invitation: KeyId
    keys: MemberKeys
    proof: Signature
    card: Hash | None


class InviteChange(Value):
    """Invite an organisation (or more people of one)."""

    kind: Literal["invite"]
    invitation: Invitation


class RekeyChange(Value):
    """Give a member new keys without its old ones (lost, restored from a copy, compromised)."""

    kind: Literal["rekey"]
    member: Slug
    keys: MemberKeys


class PolicyChange(Value):
    """Replace the policy."""

    kind: Literal["policy"]
    policy: Policy


class WithdrawChange(Value):
    """Withdraw an invitation: its free seats let nobody in any more."""

    kind: Literal["withdraw"]
    invitation: KeyId


class ExpelChange(Value):
    """Put an organisation out: its keys end, its datasets are withdrawn, what it spent stays spent."""

    kind: Literal["expel"]
    organisation: Organisation


Change = Annotated[
    InviteChange | RekeyChange | PolicyChange | WithdrawChange | ExpelChange,
    Field(discriminator="kind"),
]


class ChangeProposed(Value):
    """A steward proposes a change, which counts as its organisation's endorsement."""

    type: Literal["change.proposed"]
    change: Change


class ChangeEndorsed(Value):
    """A steward endorses a proposed change for its organisation."""

    type: Literal["change.endorsed"]
    change: Hash


class KeyRotated(Value):
    """A member replaces its keys with the old ones in hand; ``proof`` is by the new entry key."""

    type: Literal["key.rotated"]
    keys: MemberKeys
    proof: Signature


class KeyRevoked(Value):
    """A member's keys end here. Never retroactive: a compromise date marks entries as disputed."""

    type: Literal["key.revoked"]
    member: Slug
    compromised_since_ms: TimeMs | None


class KeyConflicted(Value):
    """Two entries that one key signed for one place of its chain, as leaves; the key ends here."""

    type: Literal["key.conflicted"]
    first: LeafText
    second: LeafText


class NodeReady(Value):
    """A node follows, verifies and witnesses from here on: it counts in the quorum."""

    type: Literal["node.ready"]
    protocol: Positive


class NodeResumed(Value):
    """A node came back after a restart; the nonce makes the statement fresh."""

    type: Literal["node.resumed"]
    nonce: Hash


class ProtocolActivated(Value):
    """From the next entry on, a newer version of vocabulary and rules holds."""

    type: Literal["protocol.activated"]
    version: Positive


class TimeNoted(Value):
    """The coordinator lets time pass, so that a deadline can take effect without other entries."""

    type: Literal["time.noted"]


class ForkReported(Value):
    """Two signed checkpoints of this log that no one history explains, as blobs."""

    type: Literal["fork.reported"]
    ours: BlobRef
    theirs: BlobRef


class ReceiptBroken(Value):
    """A signed receipt that the log did not keep, with what shows it, as a blob."""

    type: Literal["receipt.broken"]
    evidence: BlobRef


# --- datasets and the people in them ------------------------------------------------------------


class CellLimit(Value):
    """The integer gates of a cell, both lanes at half of its delta (units 2^-40)."""

    g_max: Positive
    r_max: Positive
    order_centi: Annotated[int, Field(ge=101, le=1_000_000)]


class CellRegistered(Value):
    """A cell of patients gets its lifetime promise, once and for ever.

    Attributes:
        declared_patients: the nominal size that may be public; never a counted one.
        block: calendar block of first registration, e.g. ``2024q1``, or ``all``.
    """

    type: Literal["cell.registered"]
    cell: Slug
    block: Slug
    half: Literal["train", "test", "both"]
    declared_patients: Positive
    epsilon_micro: Positive
    delta_e15: Annotated[int, Field(ge=1, le=10**12)]
    limit: CellLimit


class CellUse(Value):
    """What a dataset's rows in a cell are for."""

    cell: Slug
    use: Literal["train", "test", "both"]


class DatasetRegistered(Value):
    """A hospital offers a dataset: public schema, declared sizes, cells, a salted snapshot root.

    Registering again under the same name replaces the snapshot and schema; spend stays with the cells.
    """

    type: Literal["dataset.registered"]
    dataset: Slug
    schema_: BlobRef = Field(alias="schema")
    unit: Literal["patient", "record"]
    declared_train: Positive
    declared_test: Count
    cells: Annotated[tuple[CellUse, ...], Field(min_length=1, max_length=256)]
    snapshot: Hash
    card: Hash | None

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, serialize_by_alias=True)


WithdrawalReason = Literal["consent", "quality", "legal", "policy", "other"]


class DatasetWithdrawn(Value):
    """No further use of the dataset, from this entry on."""

    type: Literal["dataset.withdrawn"]
    dataset: Slug
    reason: WithdrawalReason


# --- a log that takes over from another ------------------------------------------------------------


class CarriedCell(Value):
    """A cell of the old federation, with all that was reserved or spent of it (at most 2^53 - 1)."""

    organisation: Organisation
    terms: CellRegistered
    g: Count
    r: Count
    g_overflowed: bool
    r_overflowed: bool


class CarriedDataset(Value):
    """A dataset of the old federation as it was last registered there, by that entry's hash."""

    organisation: Organisation
    node: Slug
    registration: Hash
    terms: DatasetRegistered
    withdrawn: bool


class FederationSucceeded(Value):
    """Entry 0 of a log that takes over from another one, which cannot go on.

    Attributes:
        predecessor: the old log, up to its last final checkpoint.
        carried: SHA-256 of each part of the old state, in order; the parts are entries 1 to n.
        endorsements: stewards of the old federation, who signed this body with this list empty.
    """

    type: Literal["federation.succeeded"]
    name: Slug
    policy: Policy
    organisation: Organisation
    keys: MemberKeys
    log_key: VerifyKey
    predecessor: Predecessor
    carried: Annotated[tuple[Hash, ...], Field(min_length=1, max_length=256)]
    endorsements: Annotated[tuple[SuccessionEndorsement, ...], Field(max_length=64)]


class FederationCarried(Value):
    """A part of the old state that the genesis of a successor names."""

    type: Literal["federation.carried"]
    members: Annotated[tuple[CarriedMember, ...], Field(max_length=256)]
    keys: Annotated[tuple[CarriedKey, ...], Field(max_length=256)]
    cells: Annotated[tuple[CarriedCell, ...], Field(max_length=256)]
    datasets: Annotated[tuple[CarriedDataset, ...], Field(max_length=256)]


class CellCharge(Value):
    """A charge to one cell in both lanes, units of 2^-40, rounded up."""

    cell: Slug
    g: Count
    r: Count


class StatisticsReserved(Value):
    """A steward lets its node release noisy statistics of a dataset's training half, once, and pays.

    Attributes:
        registration: entry hash of the dataset's registration.
        question: what is counted, as a blob.
        size: numbers that are released.
        sensitivity: L2 bound on one patient's contribution, grid units.
        noise_sd: deviation of the rounded Gaussian on each number, grid units.
        charges: to every cell for training, in full.
    """

    type: Literal["statistics.reserved"]
    dataset: Slug
    registration: Hash
    question: BlobRef
    size: Annotated[int, Field(ge=1, le=65_536)]
    sensitivity: Positive
    noise_sd: Positive
    charges: Annotated[tuple[CellCharge, ...], Field(min_length=1, max_length=256)]


class StatisticsReleased(Value):
    """A node's one answer to a reservation of statistics: noisy numbers, for every member."""

    type: Literal["statistics.released"]
    reservation: Hash
    result: BlobRef


# --- experiments --------------------------------------------------------------------------------


class Release(Value):
    """One kind of noisy release that a plan makes from a dataset: ``steps`` identical mechanisms.

    Attributes:
        sensitivity: L2 bound on one patient's contribution, grid units.
        noise_sd: deviation of the rounded Gaussian, grid units.
        sampling: Poisson probability in units of 2^-32; 2^32 is the full batch.
        steps: the most that the plan may run, spare rounds included.
        engine: how the sum before the noise is made: from integer vectors of each patient, or by
            book-keeping, which clips below the sensitivity by what its rounding may add.
        charges: per *step*, for every cell that the release reads.
    """

    purpose: Purpose
    sensitivity: Positive
    noise_sd: Positive
    sampling: Annotated[int, Field(ge=1, le=2**32)]
    steps: Annotated[int, Field(ge=1, le=2**31 - 1)]
    engine: Engine
    charges: Annotated[tuple[CellCharge, ...], Field(min_length=1, max_length=256)]


class SitePlan(Value):
    """What the plan asks of one dataset.

    Attributes:
        registration: entry hash of the dataset's registration the plan was made for.
        weight: the public integer that premultiplies this site's update (1 for FedSGD sums).
        divisor: what this site adds to the public divisor of the sum: its declared size.
        update_bound: L2 bound on a training update, grid units, weight included.
        epsilon_micro: the plan's own epsilon at the cell's delta, metrics included.
    """

    dataset: Slug
    registration: Hash
    weight: Positive
    divisor: Positive
    update_bound: Positive
    epsilon_micro: Positive
    releases: Annotated[tuple[Release, ...], Field(min_length=1, max_length=4)]


class Plan(Value):
    """An experiment in integers: all that the fold must know of it, implied by the spec.

    Anyone who holds the spec and the datasets' registrations recompiles it and must get these bytes.

    Attributes:
        secure_aggregation: with masks, so that the coordinator learns sums only: ``local`` where
            each site's noise alone protects it, ``distributed`` where the sites' noises do together;
            null without masks.
        noise_shares: sites over which a release's noise is divided: each adds its part of the
            variance. 1 where each adds all of it.
    """

    strategy: Literal["fedsgd", "fedavg"]
    parameters: Positive
    metric_size: Count
    rounds: Annotated[int, Field(ge=1, le=100_000)]
    steps_per_round: Annotated[int, Field(ge=1, le=10_000)]
    spare_rounds: Annotated[int, Field(ge=0, le=100)]
    evaluate: bool
    baseline: bool
    quorum: Annotated[int, Field(ge=1, le=10_000)]
    round_timeout_ms: Annotated[int, Field(ge=1000, le=30 * 24 * 3600 * 1000)]
    initial_model: BlobRef
    sites: Annotated[tuple[SitePlan, ...], Field(min_length=1, max_length=1024)]
    secure_aggregation: Literal["local", "distributed"] | None
    noise_shares: Annotated[int, Field(ge=1, le=64)]

    @property
    def rounds_with_spare(self) -> int:
        """Training rounds that are reserved: the planned ones and those kept for crashes."""
        return self.rounds + self.spare_rounds


class ExperimentProposed(Value):
    """A researcher asks. The entry's hash is the experiment's id, and so what a steward approves."""

    type: Literal["experiment.proposed"]
    name: Slug
    spec: BlobRef
    plan: Plan


class ExperimentApproved(Value):
    """A hospital's steward says yes for one dataset, on conditions."""

    type: Literal["experiment.approved"]
    experiment: Hash
    dataset: Slug
    epsilon_max_micro: Positive
    until_ms: TimeMs


RefusalReason = Literal["purpose", "privacy_cost", "legal_basis", "quality", "conflict", "other"]


class ExperimentRefused(Value):
    """A hospital's steward says no, or takes an earlier yes back: it acts on sight."""

    type: Literal["experiment.refused"]
    experiment: Hash
    dataset: Slug
    reason: RefusalReason


class ExperimentStopped(Value):
    """The researcher or the coordinator ends an experiment before its plan does."""

    type: Literal["experiment.stopped"]
    experiment: Hash
    reason: Literal["researcher", "quorum_lost", "no_approval", "expired", "invalid_plan"]


class RoundOpened(Value):
    """The coordinator names a cohort and the model that it starts from."""

    type: Literal["round.opened"]
    experiment: Hash
    round: Positive
    attempt: Positive
    kind: RoundKind
    cohort: Annotated[tuple[Slug, ...], Field(min_length=1, max_length=1024)]
    model: BlobRef
    deadline_ms: TimeMs


class Used(Value):
    """Steps of a release whose noise may have been used: counted from durable intents."""

    purpose: Purpose
    steps: Count


BudgetRefusal = Literal[
    "not_approved",
    "approval_expired",
    "approval_conditions",
    "dataset_withdrawn",
    "dataset_changed",
    "budget_exhausted",
    "plan_mismatch",
    "local_policy",
    "no_spare_round",
    "unavailable",
]


class BudgetReserved(Value):
    """A node reserves the most that the plan may spend, before it touches data."""

    type: Literal["budget.reserved"]
    experiment: Hash
    dataset: Slug
    charges: Annotated[tuple[CellCharge, ...], Field(min_length=1, max_length=256)]


class BudgetRefused(Value):
    """A node that was named in a round says why it does not take part. Never depends on rows."""

    type: Literal["budget.refused"]
    experiment: Hash
    dataset: Slug
    reason: BudgetRefusal


class BudgetSettled(Value):
    """A node gives back what the steps without an intent would have cost."""

    type: Literal["budget.settled"]
    experiment: Hash
    dataset: Slug
    used: Annotated[tuple[Used, ...], Field(max_length=4)]
    intents: Hash


class MaskedVector(Value):
    """What a masked update is bound to.

    Attributes:
        context: of the masked round.
        vector: salted commitment to the noisy vector under the masks; the same vector under fresh
            masks keeps it.
    """

    context: Hash
    vector: Hash


class UpdateSubmitted(Value):
    """A node's noisy vector for a round, with root and number of its durable intents so far.

    Attributes:
        masked: under secure aggregation, what the masked vector is bound to; else null.
    """

    type: Literal["update.submitted"]
    experiment: Hash
    dataset: Slug
    round: Positive
    attempt: Positive
    update: BlobRef
    used: Annotated[tuple[Used, ...], Field(min_length=1, max_length=4)]
    intents: Hash
    masked: MaskedVector | None


class UpdateRefused(Value):
    """The coordinator leaves an update out of the sum, and says why."""

    type: Literal["update.refused"]
    update: Hash
    reason: Literal["missing_blob", "malformed", "wrong_size", "norm_bound"]


class RoundAggregated(Value):
    """The exact sum of the named updates, and the model after the server step."""

    type: Literal["round.aggregated"]
    experiment: Hash
    round: Positive
    attempt: Positive
    updates: Annotated[tuple[Hash, ...], Field(min_length=1, max_length=1024)]
    aggregate: BlobRef
    model: BlobRef


class RoundClosed(Value):
    """The round ended without a sum."""

    type: Literal["round.closed"]
    experiment: Hash
    round: Positive
    attempt: Positive
    reason: Literal["quorum_missed", "shares_missing"]


class MaskingAdvertised(Value):
    """A node's two ephemeral keys for one masked round.

    Attributes:
        context: hash of experiment, round, attempt, roster, model and plan.
        sharing: for the envelopes of shares.
        masking: for the masks with the others.
    """

    type: Literal["masking.advertised"]
    experiment: Hash
    dataset: Slug
    round: Positive
    attempt: Positive
    context: Hash
    sharing: SealKey
    masking: SealKey


class MaskingShared(Value):
    """Shares of a node's secrets, sealed for each member of the round.

    Attributes:
        shares: the envelopes, as a blob.
        seed: commitment to the seed of the node's own mask.
    """

    type: Literal["masking.shared"]
    experiment: Hash
    dataset: Slug
    round: Positive
    attempt: Positive
    context: Hash
    shares: BlobRef
    seed: Hash


LaterPhase = Literal["share", "mask", "unmask"]
MaskingPhase = Literal["advertise", LaterPhase]


class MaskingAdvanced(Value):
    """The coordinator ends a phase and names who goes on: before ``unmask``, the survivors."""

    type: Literal["masking.advanced"]
    experiment: Hash
    round: Positive
    attempt: Positive
    phase: LaterPhase
    datasets: Annotated[tuple[Slug, ...], Field(min_length=1, max_length=64)]


class MaskingAgreed(Value):
    """A node signs whose vectors it takes as being in the sum, before it reveals anything."""

    type: Literal["masking.agreed"]
    experiment: Hash
    dataset: Slug
    round: Positive
    attempt: Positive
    context: Hash
    survivors: Hash


class RevealedShare(Value):
    """A share of one secret of one dataset.

    Attributes:
        of: whose secret.
        secret: ``seed`` of who is in the sum, masking ``key`` of who dropped out.
        share: 66 bytes, below 2^521 - 1.
    """

    of: Slug
    secret: Literal["seed", "key"]
    share: Share


class MaskingRevealed(Value):
    """A node's shares of the secrets that open the sum, and no single vector."""

    type: Literal["masking.revealed"]
    experiment: Hash
    dataset: Slug
    round: Positive
    attempt: Positive
    context: Hash
    shares: Annotated[tuple[RevealedShare, ...], Field(max_length=64)]


class ExperimentCompleted(Value):
    """The plan ran to its end; the model is a stated function of the rounds' models."""

    type: Literal["experiment.completed"]
    experiment: Hash
    model: BlobRef


class ModelReleased(Value):
    """The model may be handed out: under a final checkpoint that contains its completion."""

    type: Literal["model.released"]
    experiment: Hash
    model: BlobRef


class ModelDownloaded(Value):
    """A member took the released model."""

    type: Literal["model.downloaded"]
    experiment: Hash
    reader: Slug


class PrivacyAudited(Value):
    """Somebody checked that what leaves behaves as the proof assumes; never measured on patients' rows.

    Attributes:
        kind: ``residuals``: the deviation of noise that a node's own code added to synthetic rows, over the
            planned one; ``membership``: an attack on a released model, its true positive rate at a false
            positive rate of 1 %.
        data: what it was measured on.
        experiment: the attacked model's; null for ``residuals``.
        finding: within what the proof allows, or not.
        samples: residuals, or records attacked.
        measured_ppm, low_ppm, high_ppm: the figure and its 95 % interval, in millionths.
        bound_ppm: what the proof says: the planned deviation, or the most that an attacker reaches.
    """

    type: Literal["privacy.audited"]
    kind: Literal["residuals", "membership"]
    data: Literal["synthetic", "public_twins"]
    experiment: Hash | None
    finding: Literal["as_proved", "contradicts"]
    samples: Positive
    measured_ppm: Count
    low_ppm: Count
    high_ppm: Count
    bound_ppm: Count


class LedgerReviewed(Value):
    """A steward or auditor examined the log up to a checkpoint."""

    type: Literal["ledger.reviewed"]
    size: Count
    root: Hash
    finding: Literal["in_order", "question_open", "incident"]


GENESIS = ("federation.founded", "federation.succeeded")
"""What entry 0 may be."""

Operation = Annotated[
    FederationFounded
    | FederationSucceeded
    | FederationCarried
    | MemberJoined
    | ChangeProposed
    | ChangeEndorsed
    | KeyRotated
    | KeyRevoked
    | KeyConflicted
    | NodeReady
    | NodeResumed
    | ProtocolActivated
    | TimeNoted
    | ForkReported
    | ReceiptBroken
    | CellRegistered
    | DatasetRegistered
    | DatasetWithdrawn
    | StatisticsReserved
    | StatisticsReleased
    | ExperimentProposed
    | ExperimentApproved
    | ExperimentRefused
    | ExperimentStopped
    | RoundOpened
    | BudgetReserved
    | BudgetRefused
    | BudgetSettled
    | UpdateSubmitted
    | UpdateRefused
    | RoundAggregated
    | RoundClosed
    | MaskingAdvertised
    | MaskingShared
    | MaskingAdvanced
    | MaskingAgreed
    | MaskingRevealed
    | ExperimentCompleted
    | ModelReleased
    | ModelDownloaded
    | PrivacyAudited
    | LedgerReviewed,
    Field(discriminator="type"),
]
