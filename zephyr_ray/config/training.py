"""The trainings, and the reference's log-probs that DPO reads. Imports nothing heavy."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from zephyr_ray.config.section import Function, Section, compute
from zephyr_ray.config.unions import MAPPING, TEXT, form_of

SMOOTHED = frozenset({"robust", "exo_pair", "aot", "aot_unpaired"})
"""TRL's DPO losses that read label_smoothing."""
Scheduler = Literal["linear", "cosine", "constant", "constant_with_warmup", "inverse_sqrt"]


class Training(Section):
    workers: int | tuple[int, int] = compute(1)
    """Ray Train workers. Two numbers, [fewest, most], make training elastic: it goes on with fewer workers when a node
    is lost, and with more when one joins."""
    cpus_per_worker: float = compute(1, gt=0)
    """Logical CPUs per worker."""
    gpus_per_worker: float = compute(0, ge=0)
    """GPUs per worker; 0 trains on the CPU."""
    labels: dict[str, str] = compute({})
    """Ray node labels that the workers' nodes must have."""
    engine: Literal["packed", "padded"] = compute("packed")
    """packed: rows without padding; in DPO a pair's prompt is computed once (docs/engine.md). padded: TRL's own padded
    batches."""
    tokens_per_micro_batch: int = compute(4096, ge=1)
    """Packed: maximum tokens per forward pass of a worker; in DPO a prompt counts once."""
    oversized: Literal["alone", "refuse"] = compute("alone")
    """Packed: what becomes of a pair or dialogue of more than `tokens_per_micro_batch` tokens. alone: it gets a forward
    pass of its own; refuse: the job stops with an error."""
    packed_attention: Literal["auto", "sdpa", "flex", "flash"] = compute("auto")
    """Packed: attention kernel. sdpa: torch's, one call per completion; flex: FlexAttention; flash: the package flash-
    attn. auto: sdpa on a CPU; on a GPU flash if it is installed, else flex, or sdpa if flex does not compile. All
    support sliding windows and soft-capped scores; for capped scores sdpa holds the whole score matrix, which takes
    memory."""
    micro_batch: int = compute(8, ge=1)
    """Padded: rows per forward pass of a worker (in DPO pairs; in SFT with packing_strategy=wrapped blocks; in GRPO and
    RLOO completions). Gradients accumulate up to the global batch."""
    zero_stage: Literal[0, 1, 2, 3] = compute(0)
    """DeepSpeed ZeRO stage; 0 is plain data parallelism."""
    gradient_checkpointing: bool | Annotated[int, Field(ge=1)] = compute(False)
    """Recompute activations in the backward pass, which takes less memory and more time. true: in all decoder layers; a
    number: in that many, from the first."""
    compile: bool = compute(False)
    """Packed: compile the decoder layers with torch.compile, the reference's too. Faster, after a minute or more of
    compiling."""
    checkpoint_steps: int | None = compute(100, ge=1)
    """Optimizer steps between checkpoints, which is what a lost worker can cost. None: not by steps."""
    checkpoint_minutes: float | None = compute(None, gt=0)
    """Minutes between checkpoints. None: not by time. The last step always writes one."""
    scratch: str | None = compute(None)
    """Folder on a local disk of each worker's node, for checkpoints until they are stored, and for the export. None:
    the cache folder (ZEPHYR_RAY_CACHE)."""
    max_failures: int = compute(3, ge=0)
    """How many times lost workers are replaced before the job fails."""
    keep_checkpoints: bool = compute(False)
    """Keep the resumable training state after the stage is finished."""
    logging_steps: int = compute(10, ge=1)
    """Optimizer steps between rows of metrics."""
    report_to: tuple[str, ...] = compute(("tensorboard",))
    """Experiment trackers: tensorboard, wandb, mlflow, trackio ... (docs/report.md). They write offline, below the
    stage's folder, unless the environment names a server. [] is none."""
    trl: dict[str, Any] = Field(default_factory=dict)
    """Further options of TRL's configuration of the method, by their own names (weight_decay, optim, ld_alpha ...). An
    option that has a field here, or that nothing would read, is refused."""

    @property
    def fewest_workers(self) -> int:
        return self.workers if isinstance(self.workers, int) else self.workers[0]

    @property
    def most_workers(self) -> int:
        return self.workers if isinstance(self.workers, int) else self.workers[1]

    @property
    def recomputed_layers(self) -> int | None:
        """How many of the decoder layers recompute; None where it is all or none of them."""
        return None if isinstance(self.gradient_checkpointing, bool) else self.gradient_checkpointing

    @model_validator(mode="after")
    def _layers_are_counted_once(self) -> Training:
        if self.recomputed_layers and "every_n_layers" in (self.trl.get("gradient_checkpointing_kwargs") or {}):
            raise ValueError(
                f"gradient_checkpointing={self.recomputed_layers} counts the layers that recompute, and so does "
                "trl.gradient_checkpointing_kwargs.every_n_layers; leave one of them out"
            )
        return self

    @model_validator(mode="after")
    def _layers_can_be_compiled(self) -> Training:
        if self.compile and self.engine == "padded":
            raise ValueError("compile=true needs engine=packed")
        if self.compile and self.zero_stage == 3:
            raise ValueError(
                "compile=true needs zero_stage 0, 1 or 2: under 3 a layer's weights come and go while it computes, and "
                "nothing of it could be fused"
            )
        return self

    @model_validator(mode="after")
    def _fewest_first(self) -> Training:
        if not 1 <= self.fewest_workers <= self.most_workers:
            raise ValueError(f"workers={json.dumps(self.workers)}: write a number, or [fewest, most], of at least 1")
        return self


class Optimisation(Section):
    learning_rate: float = Field(gt=0)
    """Peak learning rate."""
    lr_scheduler: Scheduler = "cosine"
    """Learning rate schedule."""
    warmup_ratio: float = Field(0.1, ge=0, le=1)
    """Share of all steps over which the learning rate rises from 0."""
    epochs: float = Field(1, gt=0)
    """Passes over the training rows."""
    max_steps: int | None = Field(None, ge=1)
    """Number of optimizer steps, in place of `epochs`. None: as many as `epochs` takes."""
    global_batch: int = Field(32, ge=1)
    """Rows per optimizer step, whatever the number of workers: in DPO pairs, or prompts with all of their pairs where
    `preferences.rejected` is every_pair; in GRPO and RLOO prompts."""
    training: Training = Training()

    @model_validator(mode="after")
    def _a_row_for_each_worker(self) -> Optimisation:
        if self.training.most_workers > self.global_batch:
            raise ValueError(
                f"training.workers={self.training.most_workers} for global_batch={self.global_batch}: a worker without "
                "a row would only wait for the others"
            )
        return self


RawModel = Annotated[Annotated[str, Tag(TEXT)] | Annotated[Function, Tag(MAPPING)], Discriminator(form_of)]
"""A folder, a URI or a hub id as text, or a function that makes a model."""


class SFT(Optimisation):
    base: RawModel | None = None
    """The raw model: a folder, a URI, a hub id, or a function that makes one."""
    revision: str | None = None
    """Branch, tag or commit, where the base is a hub id."""
    learning_rate: float = Field(2e-5, gt=0)
    max_length: int = Field(2048, ge=8)
    """Tokens per row. A longer dialogue keeps the turns that fit and ends with an answer; only a first answer that is
    too long is cut within."""
    packing_strategy: Literal["isolated", "wrapped"] = "isolated"
    """isolated: no dialogue attends to another, whether they share rows or are padded (`training.engine`). wrapped, by
    TRL's name: dialogues are joined and cut into blocks of exactly `max_length` tokens, in which a token attends to
    earlier dialogues too (the alignment handbook's way); it needs `training.engine=padded`."""
    loss_on: Literal["all", "assistant"] = "all"
    """Which tokens are learnt: all of the dialogue, or the assistant's only."""
    eval_steps: int | None = compute(None, ge=1)
    """Optimizer steps between evaluations of the loss on `dialogues.held_out`, beside those before the first step and
    after the last one. None: an epoch's."""

    @model_validator(mode="after")
    def _blocks_have_no_mask(self) -> SFT:
        if self.packing_strategy == "wrapped" and self.loss_on != "all":
            raise ValueError("packing_strategy=wrapped needs loss_on=all")
        return self

    @model_validator(mode="after")
    def _blocks_are_not_packed_rows(self) -> SFT:
        if self.packing_strategy == "wrapped" and self.training.engine == "packed":
            raise ValueError(
                "packing_strategy=wrapped needs training.engine=padded: on the rows of the packed engine no dialogue "
                "attends to another"
            )
        return self


class ReferenceLogps(Section):
    workers: int = compute(1, ge=1)
    """Actors, each of which holds the reference model."""
    cpus_per_worker: float = compute(1, gt=0)
    """Logical CPUs per actor."""
    gpus_per_worker: float = compute(0, ge=0)
    """GPUs per actor; 0 computes on the CPU."""
    labels: dict[str, str] = compute({})
    """Ray node labels that the actors' nodes must have."""
    batch_size: int = compute(16, ge=1)
    """Padded: pairs per forward pass. Packed: unused; `dpo.training.tokens_per_micro_batch` is the limit."""


class DPO(Optimisation):
    learning_rate: float = Field(5e-7, gt=0)
    beta: float = Field(0.1, gt=0)
    """Strength of the pull to the reference (the paper's beta)."""
    loss_type: tuple[str, ...] = ("sigmoid",)
    """TRL's loss types; several are added with `loss_weights`."""
    loss_weights: tuple[float, ...] | None = None
    """One weight for each loss type."""
    label_smoothing: float = Field(0.0, ge=0, lt=0.5)
    """Assumed share of wrong labels, for the losses that are made for it: robust, exo_pair, aot, aot_unpaired."""
    best_nll: float = Field(0.0, ge=0)
    """Weight of the negative log-likelihood, by token, of a prompt's best completion beside the loss of each of its
    pairs (GroupDPO, arXiv 2604.15602). It needs preferences.rejected=every_pair."""
    step0_tolerance: float | None = compute(None, gt=0)
    """How far policy and reference may be apart at the first step: nats of a completion's log-prob by the square root
    of its tokens (docs/engine.md). None: 0.3 in bfloat16, 0.001 in float32."""

    @field_validator("loss_type", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _a_weight_for_each_loss(self) -> DPO:
        if self.loss_weights is not None and len(self.loss_weights) != len(self.loss_type):
            raise ValueError(f"loss_weights has {len(self.loss_weights)} entries for {len(self.loss_type)} loss types")
        return self

    @model_validator(mode="after")
    def _labels_are_smoothed_by_a_loss_that_does(self) -> DPO:
        if self.label_smoothing and not SMOOTHED & set(self.loss_type):
            raise ValueError(
                f"label_smoothing={self.label_smoothing:g} does nothing with loss_type={', '.join(self.loss_type)}; "
                "set loss_type=robust, or one of exo_pair, aot, aot_unpaired"
            )
        if "exo_pair" in self.loss_type and not self.label_smoothing:
            raise ValueError("loss_type=exo_pair needs label_smoothing over 0 (its paper takes 1e-3)")
        return self


class Extrapolation(Section):
    """ExPO (arXiv 2404.16792): weights beyond dDPO's, on the line through those that it started from."""

    alpha: float = Field(gt=0)
    """How far beyond, as a share of the way from start to dDPO: w = start + (1 + alpha) * (dpo - start)."""
