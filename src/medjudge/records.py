"""What crosses a seam: frozen, named, and free of behaviour."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypedDict


class Message(TypedDict):
    """One turn of a chat prompt."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True)
class Case:
    """One thing to be judged, as a task contract read it from a row."""

    case_id: str
    inputs: Mapping[str, str]
    """The fields of the prompt by their contract names; an optional field that the row lacks is absent."""
    gold: str | None = None
    """The expert's label, one of the contract's `labels`; None where no expert rated the case."""
    reason: str | None = None
    """The expert's explanation, where the row has one."""
    group: str = ""
    """Cases of one group (question, variant, patient) stay on one side of a split and are resampled together."""
    slices: Mapping[str, str] = field(default_factory=dict)
    """Columns kept for slicing results, such as `generator`. Never shown to a model."""
    ratings: Mapping[str, str] = field(default_factory=dict)
    """Rater -> label, where several experts rated the case; `gold` is then what a rule makes of them, None at a tie."""

    def to_json(self) -> dict[str, Any]:
        """The case as a JSON object, the form in which splits are stored; without `ratings` where there are none."""
        tree = {**asdict(self), "inputs": dict(self.inputs), "slices": dict(self.slices), "ratings": dict(self.ratings)}
        return tree if self.ratings else {name: value for name, value in tree.items() if name != "ratings"}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a judge said about one case."""

    case_id: str
    label: str
    """One of the contract's `labels`."""
    confidence: float | None = None
    """Verbalised confidence as a probability in [0, 1], or the label's own probability where labels were scored; None
    if neither was asked for."""
    rationale: str = ""
    score: float | None = None
    """The number that another program gave, before a threshold made a label of it."""


@dataclass(frozen=True, slots=True)
class Unparsed:
    """A completion that held no verdict: kept, counted and shown, but never given a label."""

    case_id: str
    completion: str
    reason: str
    """Why, without text of the case: "expected one <answer> block, found 0"."""
    kind: Literal["format", "schema", "truncated", "refused", "failed", "tied"] = "format"
    """`format`: the outer form is unreadable (not JSON, no tags). `schema`: the form is right, its content is not.

    `truncated`: unreadable, and cut off at the token limit. `refused`: the model or its provider declined to answer.
    `failed`: no answer came at all. `tied`: several verdicts on the case, and as many for one label as for another."""


Judgement = Verdict | Unparsed


@dataclass(frozen=True, slots=True)
class AdapterStep:
    """How far one optimiser step takes a LoRA adapter: what must agree before two ranks are compared."""

    r: int
    scale: float
    """What the adapter's product is multiplied by: alpha/r, or alpha/sqrt(r) with rsLoRA."""
    learning_rate: float
    size: float
    """learning_rate x scale x r, see `LoraSettings.step`."""


@dataclass(frozen=True, slots=True)
class Completion:
    """One completion of a prompt."""

    text: str
    n_tokens: int
    """Completion tokens, the stop token included."""
    stopped: bool
    """False if the token limit cut it off."""
    n_words_cut: int = 0
    """Words that were taken off the case's inputs so that the prompt fits."""
    shown: Mapping[str, str] | None = None
    """The case's inputs as the prompt showed them; None where it showed them whole."""
    refused: bool = False
    """The model or its provider declined to answer."""
    failure: str | None = None
    """Why there is no answer at all, without text of the case; `text` is then empty."""
    thoughts: Literal["none", "inline", "apart"] = "none"
    """How a server sent thoughts with the answer: in its text, or in a field of their own. Of a model of this machine
    always `none`: its text is what it wrote."""


@dataclass(frozen=True, slots=True)
class Rollout:
    """One sampled completion, what the contract reads in it, and the case it answers: all that a reward may look at."""

    case: Case
    judgement: Judgement
    completion: Completion

    @property
    def inputs(self) -> Mapping[str, str]:
        """The inputs as the policy saw them."""
        return self.case.inputs if self.completion.shown is None else self.completion.shown


@dataclass(frozen=True, slots=True)
class LabelScores:
    """How likely a judge holds each label of a closed set to be."""

    log_probs: Mapping[str, float]
    """Label -> natural logarithm of the probability that the judge answers with it, given the prompt and the frame."""
    probabilities: Mapping[str, float]
    """Label -> probability given that the answer is one of the labels; they add up to 1."""
    mass: float
    """Probability that the answer is one of the labels, in [0, 1]; small where a judge has not learned the format."""
    n_words_cut: int = 0
    """Words that were taken off the case's inputs so that the prompt fits."""
    bounded: tuple[str, ...] = ()
    """Labels whose probability an endpoint did not tell: what stands for them is the most that it can be. `mass` holds
    only what was told."""
    mass_most: float | None = None
    """The most that `mass` can be, with those bounds; None where every label was told."""
    mass_otherwise_written: float = 0.0
    """The part of `mass` that belongs to a label written with other case, or after a space or a line break."""

    def __post_init__(self) -> None:
        """`bounded` is a tuple, also where JSON gave a list."""
        object.__setattr__(self, "bounded", tuple(self.bounded))
