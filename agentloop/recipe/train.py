"""`train` makes an adapter from rows, by TRL. The defaults are for LoRA on all linear layers."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, SerializerFunctionWrapHandler, Strict, model_serializer, model_validator

from agentloop.recipe.online import Online
from agentloop.recipe.part import Amount, Count, Flag, NonNegative, Number, Part, Positive, PositiveShare, Share, trouble
from agentloop.recipe.reference import References
from agentloop.recipe.schedule import Scheduled
from agentloop.recipe.settings import ArtifactType, Rank, Start
from agentloop.recipe.stage import Work

Dropout = Annotated[float, Strict(), Field(ge=0, lt=1)]


class Train(Work):
    """Reads rows and makes an adapter of its role."""

    kind: ClassVar[str] = "train"
    takes: ClassVar[tuple[ArtifactType, ...]] = ("rows",)
    makes: ClassVar[ArtifactType | None] = "adapter"
    needs_input: ClassVar[bool] = True

    from_: References = Field(alias="from")
    """The rows."""
    start: Start = "previous"
    """What it continues: nothing (`base`), the adapter that the role plays with now, or the best one so far."""
    epochs: Scheduled[Positive] = Scheduled.constant(2.0)
    """Passes over the rows."""
    updates: Scheduled[Count] | None = None
    """Optimiser updates, in place of `epochs`."""
    learning_rate: Scheduled[Positive] = Scheduled.constant(2e-4)
    """Highest learning rate."""
    decay: Literal["cosine", "linear", "constant"] = "cosine"
    """How the learning rate falls to 0 after the warm-up."""
    warmup: Share = 0.05
    """Share of the updates in which the learning rate rises from 0."""
    batch_size: Scheduled[Count] = Scheduled.constant(8)
    """Rows an optimiser update, over all processes."""
    weight_decay: NonNegative = 0.0
    """Of AdamW."""
    max_grad_norm: Positive = 1.0
    """Gradients are clipped to this norm."""
    rank: Rank = 16
    """Rank of the adapter. The engine must serve it: see `max_lora_rank` of the engine."""
    alpha: Positive = 32.0
    """LoRA's scale is alpha / rank."""
    dropout: Dropout = 0.0
    """Of the adapter's input."""
    max_length: Count | None = None
    """Rows with more ids are left out, and counted; null is no limit."""
    packing: Flag = False
    """Whether several rows share a sequence; false groups rows by length."""
    max_rows: Scheduled[Count] | None = None
    """Most rows, drawn at random; null is all."""
    processes: Count = 1
    """Processes that train together."""
    distribution: Literal["ddp", "fsdp2", "zero2", "zero3"] = "ddp"
    """What is divided among them: rows alone, or by FSDP2 or DeepSpeed's ZeRO the model too, which needs accelerators."""
    quantise: Literal["none", "nf4"] = "none"
    """`nf4` keeps the base weights in 4 bits while it trains (QLoRA, arXiv:2305.14314; needs bitsandbytes); served is the whole base."""
    checkpoint_every: Count = 50
    """Optimiser updates after which the training's state is kept; one that dies goes on from there when the run is started again."""

    @model_validator(mode="before")
    @classmethod
    def _one_length(cls, value: object) -> object:
        if isinstance(value, dict) and value.get("epochs") is not None and value.get("updates") is not None:
            raise trouble("a training says 'epochs' or 'updates', not both", path=("updates",))
        return value

    @model_serializer(mode="wrap")
    def _as_written(self, handler: SerializerFunctionWrapHandler) -> dict[str, object]:
        written: dict[str, object] = handler(self)
        if self.updates is not None:
            written.pop("epochs", None)
        return written


class SupervisedTrain(Train):
    """Supervised fine-tuning: cross-entropy on the masked ids, rows weighted by their weight; below zero, a row is unlearnt."""

    method: Literal["sft"] = "sft"
    aggregate: Literal["token", "row"] = "token"
    """What the sum of weighted losses is divided by: trained ids, or rows, each the mean of its own ids. Never the sum of weights."""


class PreferenceTrain(Train):
    """Direct preference optimisation (arXiv:2305.18290) on pairs, `dataset: preference`; with `loss: kto` on single rows of any return. The
    reference is what the training continues.
    """

    method: Literal["dpo"]
    beta: Scheduled[Positive] = Scheduled.constant(0.1)
    """Strength of the pull to the reference."""
    learning_rate: Scheduled[Positive] = Scheduled.constant(5e-6)
    """Highest learning rate."""
    loss: Literal["sigmoid", "simpo", "orpo", "kto"] = "sigmoid"
    """Form of the loss: DPO, SimPO (arXiv:2405.14734), ORPO (arXiv:2403.07691), or KTO (arXiv:2402.01306)."""
    margin: Scheduled[NonNegative] = Scheduled.constant(0.5)
    """SimPO's target margin."""
    imitation: Scheduled[NonNegative] = Scheduled.constant(0.0)
    """Weight of the better side's mean negative log-likelihood, which is added (RPO, arXiv:2404.19733); not with KTO."""
    desirable: Scheduled[Number] = Scheduled.constant(1.0)
    """KTO's least return of a row to follow; the others are to avoid."""


class Covariance(Part):
    """Tokens that clip-cov takes out of the loss (arXiv:2505.22617): some of those whose covariance of advantage and log-probability lies
    between two bounds.
    """

    share: PositiveShare = 0.02
    """How many, as a share of the trained tokens; at least one."""
    low: Number = 1.0
    """Covariance above which a token may sit out."""
    high: Number = 40.0
    """Covariance below which it may."""


class Replay(Part):
    """Self-imitation of what a store holds (SPEAR, arXiv:2509.22601): after the new rows, in a pass of its own."""

    size: Count = 2048
    """Most rows that are replayed at once."""
    least: NonNegative = 1.5
    """Nothing is replayed unless more than this many times `size` rows in the store have a return above the baseline."""
    quantile: Share = 0.5
    """Which quantile of the mean returns of earlier groups the baseline is."""
    memory: Count = 10240
    """Most groups whose mean is remembered."""
    recalibrate: Flag = True
    """Whether the advantage of a row is its return less the baseline, and rows below it are dropped; false keeps its old advantage."""
    covariance: Covariance = Covariance()
    """Clip-cov of replayed rows."""


class PolicyTrain(Train):
    """Policy gradients on rows with behaviour log-probabilities (GRPO, arXiv:2402.03300, and its kin)."""

    method: Literal["grpo"]
    from_: References | None = Field(None, alias="from")  # type: ignore[assignment]  # `online` makes its own rows
    """The rows; not said where the training is `online`."""
    online: Online | None = None
    """Rounds of sampling inside the training, in place of `from`."""
    epochs: Scheduled[Positive] = Scheduled.constant(1.0)
    """Passes over the rows."""
    learning_rate: Scheduled[Positive] = Scheduled.constant(1e-5)
    """Highest learning rate."""
    clip_low: Scheduled[Positive] = Scheduled.constant(0.2)
    """How far the ratio may fall below 1."""
    clip_high: Scheduled[Positive] = Scheduled.constant(0.2)
    """How far the ratio may rise above 1."""
    kl: Scheduled[NonNegative] = Scheduled.constant(0.0)
    """Weight of the divergence from the adapter's start."""
    aggregate: Literal["token", "sequence", "constant"] = "token"
    """How token losses become one number: mean over tokens, over sequences, or by a constant length (Dr. GRPO)."""
    length: Count | None = None
    """The constant length, in trained ids; null is the most of any row."""
    correction: Scheduled[Positive] | None = None
    """Cap of the weight that makes up for rows that another version sampled: ratios are then against the training's start, and a token
    weighs min(correction, start / behaviour). Null takes ratios against the behaviour.
    """
    covariance: Covariance = Covariance()
    """Which tokens `loss: clip_cov` takes out."""
    loss: Literal["clip", "clip_cov", "reinforce"] = "clip"
    """Form of the loss."""
    imitation: Scheduled[NonNegative] = Scheduled.constant(0.0)
    """Weight of rows that come from a store, after recalibration (SPEAR, arXiv:2509.22601)."""
    replay: Replay = Replay()
    """How rows of a store are replayed."""
    max_staleness: Amount | None = None
    """Iterations by which a row's adapter may lag behind; null is no limit."""

    @model_validator(mode="before")
    @classmethod
    def _rows_or_rounds(cls, value: object) -> object:
        if isinstance(value, dict):
            online = value.get("online") is not None
            if value.get("from") is None and not online:
                raise trouble("missing key 'from' in stage 'train'", expected="from: ROWS, or online: {...}")
            for key in ("from", "updates", "max_rows", "max_staleness", "packing") if online else ():
                if value.get(key):
                    raise trouble(f"an online training has no {key!r}", path=(key,), expected="'rounds', 'staleness' and 'epochs'")
        return value


TRAINERS: tuple[type[Train], ...] = (SupervisedTrain, PreferenceTrain, PolicyTrain)
