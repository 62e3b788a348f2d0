"""Every setting: default, unit, bounds, one sentence.

The command line, Prefect's form and the docs are made from it.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic.fields import FieldInfo

from symbio_core.errors import ConfigError

S = TypeVar("S", bound="Settings")
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
PHASES = (
    "abiogenesis",
    "primordial",
    "cambrian",
    "oxidation",
    "endosymbiosis",
    "homeostasis",
)
"""The six phases in the order of a life; the field's word for what each does is in its settings."""
PhaseName = Literal[
    "abiogenesis", "primordial", "cambrian", "oxidation", "endosymbiosis", "homeostasis"
]


Mechanism = Literal[
    "search",
    "immigrants",
    "crossover",
    "diversity",
    "complexity",
    "ecology",
    "pressure",
    "fusion",
    "kuramoto",
    "niche",
    "dormancy",
    "averaging",
    "probe",
    "final",
]
MECHANISMS: tuple[Mechanism, ...] = get_args(Mechanism)
"""Everything that `without` can switch off."""


class Settings(BaseModel):
    """Base of all groups: frozen, closed to unknown keys; the string under a field is its help."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True
    )


class DataSettings(Settings):
    """What the model reads."""

    corpus: str = "shakespeare"
    """`shakespeare` (38 plays; extra `demo`), or a text file (UTF-8), a folder, gs://bucket/name."""
    format: Literal["auto", "chat", "plain"] = "auto"
    """How turns are marked; `auto` finds the chat tokens by looking."""
    tokenizer: Literal["bpe", "char"] = "bpe"
    """Byte-level BPE trained on the train split, or one token a character."""
    vocab_size: int = Field(1024, ge=260, le=65_536)
    """Entries of the BPE vocabulary (tokens); a character tokenizer takes what the text has."""
    validation_frac: float = Field(0.06, gt=0.0, lt=0.5)
    """Share of the documents that search and gates look at (0..1)."""
    confirm_frac: float = Field(0.06, gt=0.0, lt=0.5)
    """Share of the documents that only the confirmation looks at (0..1)."""
    max_bytes: int | None = Field(None, ge=10_000)
    """Read at most this much of the corpus (bytes); empty reads all of it."""

    @model_validator(mode="after")
    def most_of_the_corpus_is_for_training(self) -> Self:
        """Refuse splits that leave less than half for training."""
        held_out = self.validation_frac + self.confirm_frac
        if held_out > 0.5:
            raise ValueError(
                f"validation_frac + confirm_frac is {held_out:g}; keep it at 0.5 or less, "
                "so that at least half of the corpus is trained on"
            )
        return self


class ModelSettings(Settings):
    """Shape of the GPT."""

    n_layer: int = Field(4, ge=1, le=48)
    """Transformer blocks."""
    n_head: int = Field(4, ge=1, le=64)
    """Attention heads a block."""
    n_embd: int = Field(128, ge=8, le=4096, multiple_of=2)
    """Width (channels)."""
    context: int = Field(64, ge=8, le=8192)
    """Longest text the model sees at once (tokens)."""
    ffn: Literal["plain", "gated"] = "plain"
    """Plain: down(f(up x)). Gated: down(f(gate x) · up x) at matched parameters (SwiGLU's form)."""
    ffn_ratio: float = Field(4.0, ge=1.0, le=8.0)
    """Width of a plain FFN over the model's width; a gated one takes 2/3 of it."""
    coefficients: Literal["fixed", "learned"] = "fixed"
    """Constants of an evolved function's terms: as evolved, or learned from there in each layer."""
    tie_embeddings: bool = False
    """Use the token embedding as the output head too."""

    @model_validator(mode="after")
    def heads_divide_the_width(self) -> Self:
        """Refuse a width that the heads cannot share, or a head of odd width (RoPE turns pairs)."""
        if self.n_embd % (2 * self.n_head):
            raise ValueError(
                f"n_embd {self.n_embd} is not a multiple of 2 × n_head = {2 * self.n_head}; "
                f"take n_embd={2 * self.n_head * max(1, round(self.n_embd / (2 * self.n_head)))}"
            )
        return self

    def reduced(self, scale: float) -> ModelSettings:
        """Return the same model, ``scale`` times as deep and as wide; heads keep their width."""
        head = self.n_embd // self.n_head
        heads = max(1, round(self.n_head * scale))
        return self.model_copy(
            update={
                "n_layer": max(1, round(self.n_layer * scale)),
                "n_head": heads,
                "n_embd": head * heads,
            }
        )

    def work(self, n_vocab: int) -> float:
        """Return the multiply-adds of one token's forward pass, attention and head included.

        Source:
            Kaplan et al. (2020), Scaling laws for neural language models, table 1.
        """
        block = self.n_embd**2 * (4 + 2 * self.ffn_ratio) + self.n_embd * self.context
        return self.n_layer * block + self.n_embd * n_vocab


STEP_WORK = 1.5e8
"""Multiply-adds that any step costs beside its model's: what is waited for however small it is.

From times of a demo step at full and at half scale on one CPU core (`symbio bench steps`)."""


class OptimiserSettings(Settings):
    """How weights move."""

    name: Literal["adamw", "muon"] = "adamw"
    """AdamW for all, or Muon for the matrices of the blocks and AdamW for the rest."""
    peak_lr: float = Field(2e-3, gt=0.0, le=1.0)
    """Highest learning rate of AdamW."""
    muon_lr: float = Field(0.01, gt=0.0, le=1.0)
    """Highest learning rate of Muon; it follows the same schedule."""
    weight_decay: float = Field(0.01, ge=0.0, le=1.0)
    """Decoupled weight decay of matrices (per unit of learning rate)."""
    batch_size: int = Field(12, ge=1, le=4096)
    """Sequences a step."""
    clip_norm: float = Field(1.0, gt=0.0)
    """Gradients are scaled down to this norm."""
    spike_factor: float = Field(8.0, gt=1.0)
    """A step whose gradient norm exceeds this multiple of its running median is skipped."""
    warmup_steps: int = Field(50, ge=0)
    """Steps in which the learning rate climbs from 0 to its peak."""
    schedule: Literal["trapezoid", "seed"] = "trapezoid"
    """`trapezoid`: flat, then linear decay over the whole run; `seed`: each phase's own factors."""
    decay_frac: float = Field(0.5, gt=0.0, le=1.0)
    """Share of the run in which the trapezoid falls (0..1)."""
    final_lr_factor: Fraction = 0.02
    """Where the trapezoid ends, as a share of the peak."""
    ema_decay: float = Field(0.98, ge=0.0, lt=1.0)
    """Decay a step of the averaged weights that are judged beside the live ones; 0 keeps none."""


class FusionSettings(Settings):
    """Consensus fusion of members (elastic averaging, paced by Kuramoto phases)."""

    base: Fraction = 0.003
    """Weakest pull a step of a member to the consensus."""
    max: Fraction = 0.012
    """Strongest pull a step."""
    consensus_rate: Fraction = 0.02
    """Rate a step at which the consensus follows the members' mean."""
    damping: float = Field(0.05, ge=0.0, le=5.0)
    """Damping of the phase velocities."""

    @model_validator(mode="after")
    def base_is_below_max(self) -> Self:
        """Refuse a weakest pull above the strongest."""
        if self.base > self.max:
            raise ValueError(f"fusion base {self.base:g} is above max {self.max:g}; swap them")
        return self


class PhaseSettings(Settings):
    """The numbers of one phase; verdicts reshape them (niche construction)."""

    share: float = Field(gt=0.0, le=1.0)
    """Share of the budget (0..1); the shares of all phases are brought to a sum of 1."""
    lr_factor: float = Field(1.0, gt=0.0, le=10.0)
    """Learning rate over peak in the `seed` schedule, at the phase's start."""
    lr_factor_end: float | None = Field(None, gt=0.0, le=10.0)
    """Where a cosine takes it by the phase's end; empty holds it."""
    population: int = Field(0, ge=0, le=64)
    """Candidates a generation; 0 trains without search."""
    mutation: Fraction = 0.5
    """Probability that an offspring is mutated (0..1)."""
    coupling: float = Field(0.5, ge=0.0, le=20.0)
    """Kuramoto's K between members (1/step-normalised time)."""
    max_depth: int = Field(5, ge=1, le=12)
    """Deepest expression tree allowed."""
    max_nodes: int = Field(12, ge=1, le=64)
    """Largest expression tree allowed (nodes)."""
    start: Literal["fresh", "warm"] = "warm"
    """Members start from fresh weights of a smaller model, or from the main line's own weights."""
    rung_steps: int = Field(20, ge=1)
    """Steps of a candidate's first rung; each further rung doubles the total."""
    diversity_bonus: float = Field(0.1, ge=0.0, le=5.0)
    """What novelty is worth in ranking, in spreads of the generation's scores."""
    fusion: FusionSettings = FusionSettings()
    """How strongly members are pulled to their consensus."""


def _fusion(base: float, top: float, rate: float, damping: float) -> FusionSettings:
    return FusionSettings(base=base, max=top, consensus_rate=rate, damping=damping)


class PhaseTable(Settings):
    """The six phases, with the seed document's figures as defaults."""

    abiogenesis: PhaseSettings = PhaseSettings(share=0.04, lr_factor=1.0)
    """Baseline with GELU, no search."""
    primordial: PhaseSettings = PhaseSettings(
        share=0.16, lr_factor=0.5, population=6, mutation=0.8, coupling=0.3, max_depth=3,
        max_nodes=6, start="fresh", rung_steps=20, diversity_bonus=0.20,
        fusion=_fusion(0.001, 0.005, 0.01, 0.05),
    )  # fmt: skip
    """Explore: wide search over small trees."""
    cambrian: PhaseSettings = PhaseSettings(
        share=0.24, lr_factor=0.3, population=12, mutation=0.5, coupling=0.5, max_depth=5,
        max_nodes=12, rung_steps=35, diversity_bonus=0.15, fusion=_fusion(0.003, 0.012, 0.02, 0.05),
    )  # fmt: skip
    """Diversify: more candidates, deeper trees."""
    oxidation: PhaseSettings = PhaseSettings(
        share=0.16, lr_factor=0.2, population=8, mutation=0.3, coupling=0.8, max_depth=5,
        max_nodes=12, rung_steps=50, diversity_bonus=0.05, fusion=_fusion(0.010, 0.030, 0.03, 0.03),
    )  # fmt: skip
    """Converge: strong coupling, pruning; ends with the confirmation."""
    endosymbiosis: PhaseSettings = PhaseSettings(share=0.30, lr_factor=0.1, lr_factor_end=0.03)
    """Deep training of the winner, no search."""
    homeostasis: PhaseSettings = PhaseSettings(share=0.10, lr_factor=0.03)
    """Last refinement at a very low learning rate, watching for regression."""

    def of(self, phase: str) -> PhaseSettings:
        """Return the settings of the phase called ``phase``."""
        settings: PhaseSettings = getattr(self, phase)
        return settings


class SearchSettings(Settings):
    """How activation functions are proposed, compared and selected."""

    mutation: Fraction | None = None
    """Mutation probability in every search phase (0..1); empty keeps each phase's own."""
    population: int | None = Field(None, ge=2, le=64)
    """Candidates a generation in every search phase; empty keeps each phase's own."""
    exploration_frac: Fraction = 0.35
    """Share of a search phase's steps that may buy generations; the rest trains the main line."""
    patience: int = Field(2, ge=1, le=50)
    """Generations without a find after which a phase stops buying them."""
    rungs: int = Field(3, ge=1, le=6)
    """Stages of successive halving in a generation."""
    keep_frac: float = Field(0.34, gt=0.0, lt=1.0)
    """Share of the members that goes on to the next rung (0..1)."""
    selection: Literal["top-k", "tournament"] = "top-k"
    """How parents are drawn from the hall of fame."""
    crossover: Fraction = 0.25
    """Probability that an offspring has two parents (0..1)."""
    complexity_price: float = Field(0.05, ge=0.0, le=5.0)
    """What a node costs in ranking, in spreads of the generation's scores."""
    eval_batches: int = Field(12, ge=4, le=512)
    """Fixed validation batches of a paired comparison."""
    scale: float = Field(0.5, gt=0.0, le=1.0)
    """Depth and width of the model that fresh members train, over the run's own (0..1)."""
    shuffle: bool = False
    """Deal the scores out at random, so that nothing is better than anything (null search)."""
    free_energy: float = Field(0.0, ge=0.0, le=10.0)
    """β of the free energy F = loss + β·weight entropy that ranking goes by (nats a nat)."""


class ConfirmSettings(Settings):
    """The final, on a split the search never saw."""

    steps_frac: float = Field(0.15, gt=0.0, le=0.6)
    """Share of the whole budget spent on training contenders from fresh weights (0..1)."""
    seeds: int = Field(3, ge=2, le=50)
    """Fresh seeds a contender."""
    eval_batches: int = Field(24, ge=8, le=1024)
    """Fixed batches of the confirm split."""
    scale: float = Field(1.0, gt=0.0, le=1.0)
    """Depth and width of the model that contenders train, over the run's own (0..1)."""
    warm_steps: int = Field(40, ge=0)
    """Steps of the warm trial that decides what endosymbiosis trains."""


class GateSettings(Settings):
    """What is looked at between phases, and when it counts."""

    confidence: float = Field(0.95, ge=0.5, lt=1.0)
    """Confidence of every interval (0..1)."""
    n_prompts: int = Field(20, ge=4, le=200)
    """Prompts of the inference battery."""
    temperatures: tuple[Annotated[float, Field(ge=0.0, le=5.0)], ...] = Field(
        (0.4, 0.7, 1.0), min_length=1, max_length=12
    )
    """Sampling temperatures; every prompt is tried at each, and 0 takes the likeliest token."""
    prompts_file: str | None = None
    """A file with one prompt a line; empty draws them from the held-out split."""
    new_tokens: int = Field(48, ge=8, le=2048)
    """Longest answer of the battery (tokens)."""
    regression_frac: float = Field(0.30, gt=0.0, le=1.0)
    """Loss of quality against the best so far that rolls the run back (0..1)."""
    skip_frac: float = Field(0.35, gt=0.0, le=1.0)
    """Share of steps skipped as spikes that counts as divergence (0..1)."""
    eval_every: int = Field(100, ge=1)
    """Steps of the main line between evaluations."""
    eval_batches: int = Field(24, ge=8, le=1024)
    """Fixed validation batches of the main line's evaluations."""
    overtime: float = Field(2.0, gt=1.0)
    """A phase that takes this multiple of its predicted time is stopped and restarted."""


class BudgetSettings(Settings):
    """Hard caps."""

    steps: int = Field(5000, ge=1)
    """Optimiser steps of one member, summed over everything the run does."""
    max_seconds: float | None = Field(None, gt=0.0)
    """Wall time after which the run ends well (s); empty sets no cap."""
    max_usd: float | None = Field(None, gt=0.0)
    """Cost of cloud machines before which the run ends well ($); empty sets no cap."""
    max_attempts: int = Field(2, ge=1, le=10)
    """Times a phase may be tried."""
    max_rollbacks: int = Field(3, ge=0, le=20)
    """Times a run may return to an earlier checkpoint."""
    on_exhausted: Literal["continue", "ask", "stop"] = "continue"
    """When a phase has no attempts left: go on from the best checkpoint, ask a person, or stop."""
    ask_timeout_s: float = Field(3600.0, gt=0.0)
    """How long to wait for a person's choice before going on (s)."""


class BootSettings(Settings):
    """What a cloud machine starts from."""

    image_project: str = "deeplearning-platform-release"
    """Google Cloud project that publishes the image family."""
    image_family: str = "common-cu129-ubuntu-2204-nvidia-580"
    """Family of boot images; its newest image is resolved at launch and recorded."""
    disk_gb: int = Field(100, ge=10, le=65_536)
    """Size of the boot disk (GB); not smaller than the image."""
    disk_type: Literal["pd-balanced", "pd-ssd", "pd-standard", "hyperdisk-balanced"] = "pd-balanced"
    """Kind of the boot disk; a g2 machine takes no pd-standard."""


class AccessSettings(Settings):
    """Who a cloud machine is, and who can reach it."""

    service_account: str | None = None
    """E-mail of the account the machine acts as; empty takes the project's default one."""
    scopes: tuple[str, ...] = ("https://www.googleapis.com/auth/cloud-platform",)
    """OAuth scopes of the machine; the account's roles are what limits it."""
    network: str = "default"
    """VPC network of the machine."""
    subnetwork: str | None = None
    """Subnetwork in the machine's region; empty takes the network's own."""
    external_ip: bool = False
    """Give the machine a public address; without one it needs Cloud NAT to install packages."""
    os_login: bool = True
    """Let people in by their Google identity (OS Login) rather than by keys in metadata."""


_ZONES = ("us-central1-a", "us-central1-b", "us-central1-c", "us-east1-b", "us-east1-c")


class GceSettings(Settings):
    """A machine of Google Compute Engine: which, where, and when it has to go."""

    project: str | None = Field(None, pattern=r"^[a-z][-a-z0-9.:]{4,61}[a-z0-9]$")
    """Google Cloud project that pays; needed with kind gce."""
    zones: tuple[Annotated[str, Field(pattern=r"^[a-z]+-[a-z]+[0-9]+-[a-z]$")], ...] = Field(
        _ZONES, min_length=1, max_length=40
    )
    """Zones in the order they are tried."""
    machine_type: str = Field("g2-standard-4", pattern=r"^[a-z][-a-z0-9]+$")
    """Kind of machine; g2-standard-4 brings one NVIDIA L4."""
    spot: bool = True
    """Take spare capacity at a lower price, which may be taken back at any time."""
    allow_on_demand: bool = False
    """Pay the full price once spot capacity was refused or lost too often."""
    tries_per_zone: int = Field(2, ge=1, le=20)
    """Failures of a zone before it is not tried again, for spot and full price each."""
    retry_after_s: float = Field(60.0, ge=0.0, le=3600.0)
    """How long a zone rests after its first failure (s); each further one doubles it."""
    max_run_hours: float = Field(24.0, ge=0.01, le=2880.0)
    """After this long Google itself ends the machine (h)."""
    at_end: Literal["delete", "stop"] = "delete"
    """What becomes of a machine that ends or is taken back; a stopped one's disk still costs."""
    notice_s: int = Field(120, ge=0, le=120)
    """Warning asked for before a spot machine is taken back (s)."""
    label: str = Field("symbio", pattern=r"^[a-z0-9][a-z0-9_-]{0,53}$")
    """First part of the label `symbio` on all that a run owns; the second is a mark of the storage
    root, so that two buckets never remove one another's machines."""
    usd_per_hour: float | None = Field(None, gt=0.0, le=1000.0)
    """Price of the machine ($/h); empty takes it from the price table."""
    prices: str | None = None
    """A TOML file with a price table of your own; empty takes the one that comes along."""
    endpoint: str | None = Field(None, pattern=r"^https?://")
    """Another address of the Compute API, for a private endpoint; empty takes Google's own."""
    boot: BootSettings = BootSettings()
    """What it starts from."""
    access: AccessSettings = AccessSettings()
    """Who it is."""

    @model_validator(mode="after")
    def machine_takes_the_disk(self) -> Self:
        """Refuse a disk that this family of machines cannot boot from."""
        if self.machine_type.startswith(("g2-", "a3-")) and self.boot.disk_type == "pd-standard":
            raise ValueError(
                f"{self.machine_type} cannot boot from pd-standard; take boot.disk_type=pd-balanced"
            )
        if len(set(self.zones)) < len(self.zones):
            raise ValueError("zones names a zone twice; name each once, in the order to try them")
        return self

    @model_validator(mode="after")
    def full_price_is_asked_for_once(self) -> Self:
        """Refuse a fallback from a price that is not asked for."""
        if self.allow_on_demand and not self.spot:
            raise ValueError(
                "allow_on_demand is a fallback from spot, and spot is off; leave one of them out"
            )
        return self

    @property
    def regions(self) -> tuple[str, ...]:
        """The regions of the zones, in order, each once."""
        return tuple(dict.fromkeys(zone.rpartition("-")[0] for zone in self.zones))


class ElsewhereSettings(Settings):
    """How the parent and a phase on another machine keep in touch, through the storage root."""

    beat_s: float = Field(5.0, ge=0.1, le=30.0)
    """The phase says this often that it lives (s)."""
    lost_after_s: float = Field(45.0, ge=0.5, le=120.0)
    """Silence after which a phase counts as lost and is started again (s)."""
    poll_s: float = Field(2.0, ge=0.05, le=30.0)
    """The parent looks this often (s)."""
    pause_s: float = Field(5.0, ge=0.0, le=600.0)
    """Pause before a phase is started again (s); each start that got no further doubles it."""
    max_fruitless: int = Field(5, ge=1, le=50)
    """Starts in a row that get no further than those before, after which the run stops."""
    boot_s: float = Field(1200.0, ge=5.0, le=7200.0)
    """A machine whose worker is not up after so long is given up (s)."""
    idle_s: float = Field(600.0, ge=5.0, le=86_400.0)
    """A machine that trains nothing for so long removes itself (s)."""
    prefect_api_url: str | None = Field(None, pattern=r"^https?://")
    """Address of the Prefect server as the machine sees it; empty takes the parent's own."""
    secrets: dict[str, str] = {}
    """Environment variable of the worker → projects/P/secrets/NAME in Secret Manager."""

    pass_on: tuple[Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]*$")], ...] = (
        "PREFECT_API_KEY",
        "PREFECT_API_AUTH_STRING",
    )
    """Your own environment variables that a cloud machine gets by way of Secret Manager."""

    @field_validator("secrets")
    @classmethod
    def secrets_are_names(cls, secrets: dict[str, str]) -> dict[str, str]:
        """Refuse a secret itself where the name of one belongs."""
        for name, where in secrets.items():
            if not re.fullmatch(r"projects/[^/]+/secrets/[^/]+(/versions/[^/]+)?", where):
                raise ValueError(
                    f"{name} has to name a secret, projects/PROJECT/secrets/NAME; its value "
                    "belongs in Secret Manager"
                )
        return secrets

    @model_validator(mode="after")
    def address_holds_no_password(self) -> Self:
        """Refuse a password where everyone who may look at the machine reads it."""
        if (
            self.prefect_api_url
            and "@" in self.prefect_api_url.partition("://")[2].partition("/")[0]
        ):
            raise ValueError(
                "prefect_api_url holds a user or a password before '@', and machines show it to "
                "many; leave them out and set PREFECT_API_AUTH_STRING in your environment"
            )
        return self

    @model_validator(mode="after")
    def silence_is_longer_than_a_beat(self) -> Self:
        """Refuse to call a phase lost that merely has not beaten yet."""
        if self.lost_after_s < 3 * self.beat_s:
            raise ValueError(
                f"lost_after_s={self.lost_after_s:g} is less than three beats of {self.beat_s:g} s;"
                " raise it or lower beat_s"
            )
        return self


class ComputeSettings(Settings):
    """Where it runs."""

    kind: Literal["local", "pool", "gce"] = "local"
    """This machine, whichever serves the pool symbio-gpu, or one of Google that symbio starts."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto` takes CUDA where there is one."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of the forward pass; `auto` takes bfloat16 where the machine has it."""
    threads: int | None = Field(None, ge=1, le=512)
    """CPU threads; empty takes the physical cores."""
    deterministic: bool | None = None
    """Insist on repeatable kernels; empty means on a CPU yes, on a GPU no."""
    elsewhere: ElsewhereSettings = ElsewhereSettings()
    """How to keep in touch, where kind is not local."""
    gce: GceSettings = GceSettings()
    """The machine, where kind is gce."""

    @model_validator(mode="after")
    def cloud_machine_has_a_project(self) -> Self:
        """Refuse a cloud machine that nobody pays for."""
        if self.kind == "gce" and self.gce.project is None:
            raise ValueError(
                "kind gce needs a Google Cloud project; set compute.gce.project=YOUR-PROJECT"
            )
        return self


class StorageSettings(Settings):
    """Where runs are kept."""

    root: str = "storage"
    """Folder of all runs, or gs://bucket/prefix."""
    location: str | None = None
    """Where a bucket has to lie, for example us-central1; empty allows any place."""
    save_every: int = Field(500, ge=1)
    """Steps between checkpoints inside a phase."""
    lease_s: float = Field(60.0, ge=3.0, le=3600.0)
    """A process that works on a run and is not heard of for so long may be replaced (s)."""


class RunConfig(Settings):
    """All of a run: what it reads, what it trains, what it may spend."""

    profile: str = "demo"
    """The preset this configuration grew from."""
    seed: int = Field(1, ge=0, lt=2**31)
    """Everything random grows from it."""
    inherit: Literal["weights", "knowledge"] = "weights"
    """What passes from phase to phase: weights and all, or only knowledge about functions, each
    phase then begins with fresh weights and is judged against knowing nothing."""
    start_from: str | None = None
    """Run whose best checkpoint this one starts from; `latest` is the newest finished run."""
    without: tuple[Mechanism, ...] = ()
    """Mechanisms that are switched off, for an ablation or because they did not help."""
    data: DataSettings = DataSettings()
    model: ModelSettings = ModelSettings()
    optimiser: OptimiserSettings = OptimiserSettings()
    phases: PhaseTable = PhaseTable()
    search: SearchSettings = SearchSettings()
    confirm: ConfirmSettings = ConfirmSettings()
    gates: GateSettings = GateSettings()
    budget: BudgetSettings = BudgetSettings()
    compute: ComputeSettings = ComputeSettings()
    storage: StorageSettings = StorageSettings()

    @model_validator(mode="after")
    def fusion_has_rungs_to_happen_between(self) -> Self:
        """Refuse fusion where it would be a name only."""
        fuses = self.has("fusion") and self.has("search")
        if fuses and self.search.rungs < 2:
            raise ValueError(
                "fusion happens between two rungs and search.rungs is 1; set search.rungs=2 or "
                "more, or switch fusion off (--without fusion,kuramoto)"
            )
        return self

    def step_cost(self, scale: float) -> float:
        """Return what a step of the model at ``scale`` costs, in steps of the run's own (0..1]."""
        vocabulary = self.data.vocab_size
        tokens = self.optimiser.batch_size * self.model.context
        own, other = (m.work(vocabulary) for m in (self.model, self.model.reduced(scale)))
        return (other * tokens + STEP_WORK) / (own * tokens + STEP_WORK)

    def has(self, mechanism: Mechanism) -> bool:
        """Say whether a mechanism is switched on."""
        return mechanism not in self.without

    def phase(self, name: str) -> PhaseSettings:
        """Return a phase's settings with the search-wide overrides applied."""
        settings = self.phases.of(name)
        if not settings.population:
            return settings
        changes: dict[str, Any] = {}
        if self.search.mutation is not None:
            changes["mutation"] = self.search.mutation
        if self.search.population is not None:
            changes["population"] = self.search.population
        return changed(settings, changes) if changes else settings


def changed(settings: S, changes: dict[str, Any]) -> S:
    """Return ``settings`` with the dotted keys of ``changes`` replaced, validated as a whole.

    Raises:
        ConfigError: a key is unknown or a value is out of bounds; the message names both.
    """
    data = settings.model_dump()
    for dotted, value in changes.items():
        *groups, leaf = dotted.split(".")
        here: Any = data
        for group in groups:
            if not isinstance(here, dict) or group not in here:
                raise ConfigError(_unknown_key(dotted, here))
            here = here[group]
        if not isinstance(here, dict) or leaf not in here:
            raise ConfigError(_unknown_key(dotted, here))
        here[leaf] = value
    return checked(type(settings), data)


def checked(kind: type[S], data: dict[str, Any]) -> S:
    """Validate ``data`` as ``kind`` and turn pydantic's report into one line.

    Raises:
        ConfigError: what is wrong, where, and what would do.
    """
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "configuration"
        got = "" if isinstance(first["input"], dict) else f" (got {first['input']!r})"
        more = f"; and {error.error_count() - 1} more" if error.error_count() > 1 else ""
        text = first["msg"].removeprefix("Value error, ")
        hint = "; see `symbio config` for every setting and its bounds"
        raise ConfigError(f"setting '{where}': {text}{got}{more}{hint}") from error


def _unknown_key(dotted: str, here: object) -> str:
    known = ", ".join(sorted(here)) if isinstance(here, dict) else "none here"
    return f"setting '{dotted}' is unknown; known at that place: {known}"


class SettingRow(BaseModel):
    """One setting as a person reads it."""

    key: str
    value: str
    bounds: str
    help: str


def describe(settings: Settings, prefix: str = "") -> list[SettingRow]:
    """Return every setting below ``settings``: dotted key, value, bounds, what it means."""
    rows: list[SettingRow] = []
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        if isinstance(value, Settings):
            rows += describe(value, f"{prefix}{name}.")
            continue
        shown = "–" if value is None else str(value)
        help_text = (field.description or "").replace("`", "")
        rows.append(
            SettingRow(key=f"{prefix}{name}", value=shown, bounds=_bounds(field), help=help_text)
        )
    return rows


_SIGNS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<", "multiple_of": "multiple of"}


def _bounds(field: FieldInfo) -> str:
    kinds = [field.annotation, *get_args(field.annotation)]
    choices = [get_args(kind) for kind in kinds if get_origin(kind) is Literal]
    if choices:
        return " | ".join(str(choice) for choice in choices[0])
    metadata = list(field.metadata)
    for kind in kinds:
        metadata += [part for extra in getattr(kind, "__metadata__", ()) for part in extra.metadata]
    found = [
        f"{sign} {getattr(part, key)}"
        for part in metadata
        for key, sign in _SIGNS.items()
        if hasattr(part, key)
    ]
    return ", ".join(found)
