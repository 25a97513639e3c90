"""The content of `results.json` as types: what every measure is written to and every page is made from.

Proportions and F1 are in [0, 1]; differences are in points (hundredths). A number that is undefined is None, never NaN.
A field with a default may be absent: results of earlier versions are read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ValidationError, field_validator, model_validator

from medjudge.errors import RunError
from medjudge.metrics.expert_results import ExpertsResult
from medjudge.metrics.metric_result import Frozen, MetricResult, Number, TestResult
from medjudge.metrics.preferences import Preferences
from medjudge.metrics.probes import Probes
from medjudge.metrics.reasoning import ReasoningResults
from medjudge.metrics.score_results import ScoresResult
from medjudge.metrics.stored import StoredLineage

RESULTS_VERSION = 1
Kind = Literal[
    "difference", "chance", "heterogeneity", "calibration", "self-preference", "probe", "ceiling", "annotators"
]
Role = Literal["model", "baseline"]
ComparisonKind = Literal["reference", "consecutive", "baseline"]


def _with_accuracy(metrics: dict[str, Any]) -> dict[str, Any]:
    if "accuracy" not in metrics:
        raise ValueError("expected `accuracy`")
    return metrics


_HAS_ACCURACY = AfterValidator(_with_accuracy)  # pages show it without asking


class PowerResult(Frozen):
    """What a number of rows could show, whatever they did show."""

    n: int
    design_effect: float
    """Variance with groups over variance without, at least 1: n / design_effect rows are independent."""
    minimum_detectable: Number
    """The smallest distance that n rows detect with the wanted power, as a proportion; None where there is none."""
    power: float
    alpha: float
    effect: float | None = None
    rows_needed: int | None = None
    """With `effect`, in results of an earlier program only."""


class GeneratorResult(Frozen):
    """The rows of one generator, or of one value of another slice."""

    generator: str
    n: int
    n_groups: int
    n_unparsed: int
    prevalence: MetricResult | None
    """Share of gold positive; None where the task has no positive label."""
    positive_rate: MetricResult | None
    """Share that the judge calls positive, of all rows."""
    always_positive_f1: Number
    """F1 of calling everything positive, 2p / (1 + p); None where the task has no positive label."""
    statistics: dict[str, MetricResult]
    """Name -> estimate, of `by_generator.GENERATOR_STATISTICS`."""
    minimum_detectable: Number
    """Smallest distance of accuracy from chance that n rows detect with 80 % power, as a proportion."""
    unanswered: dict[str, int] = {}  # noqa: RUF012  (pydantic copies it)
    """Kind of `classification.KINDS` -> count; empty in results of an earlier program."""
    answered_only: MetricResult | None = None
    """Share right of the cases with a verdict; None in results of an earlier program."""


class HeterogeneityResult(Frozen):
    """Whether a rate differs between generators by more than chance."""

    outcome: str
    """Which rate: `prevalence`, `accuracy`, `tpr`, `tnr`, `answered`."""
    statistic: float
    df: int
    p: float
    method: str
    n: int
    rates: dict[str, float]
    sd: float
    """Standard deviation of the rates across generators, (k - 1) in the denominator."""
    sampling_sd: float
    """What sampling alone would give, from the rates' covariance over groups."""
    excess_sd: float
    """What sampling does not explain; 0 where it explains all."""
    n_groups: int = 0
    """Groups of the rows that were tested."""
    answered_only: bool = False
    """Whether cases without a verdict were left out, as they are where there are any."""


class SelfPreferenceResult(Frozen):
    """A judge's error on answers of its own family less its error on others'."""

    family: str
    n_own: int
    n_other: int
    positive_rate_error: MetricResult
    """(share called positive - share gold positive) on own family, minus the same on the others."""
    false_positive_rate: MetricResult
    """Share called positive among gold negatives, own family minus others: no prevalence in it."""
    test: TestResult | None = None
    """Of `positive_rate_error`; None in results of an earlier program."""


class BinResult(Frozen):
    """One bin of a reliability diagram."""

    confidence: float
    accuracy: float
    low: Number
    high: Number
    n: int


class SelectiveResult(Frozen):
    """A threshold for a wanted error rate; `threshold` None where none keeps the promise."""

    max_error: float
    threshold: float | None
    coverage: float
    error: Number
    n: int
    promise: str
    method: str = "learn-then-test"
    abstention: dict[str, dict[str, MetricResult]] = {}  # noqa: RUF012  (pydantic copies it)
    """`gold label`, `generator` -> value -> share of its verdicts that go to a person; empty without a threshold."""


class CalibrationMeasures(Frozen):
    """One judge's confidences against what was right; intervals are bootstraps over groups."""

    n: int
    n_without: int
    """Verdicts without a confidence."""
    mean_confidence: float
    accuracy: float
    ece: float
    """Without an interval: a bootstrap of ECE is biased once more than ECE itself."""
    ece_if_calibrated: float
    """Mean ECE of a perfectly calibrated judge with these confidences: what ECE's upward bias makes of zero here."""
    calibrated_p: float
    """Small means not calibrated: by sign flips of groups, or of equal confidences by draws of independent rows."""
    rms_error: float
    """Debiased root-mean-square calibration error (Kumar et al. 2019, arXiv:1909.10155)."""
    brier: MetricResult
    brier_parts: dict[str, float]
    """The fields of `reliability.BrierParts`."""
    log_loss: MetricResult
    aurc: MetricResult
    excess_aurc: float
    bins: tuple[BinResult, ...]


class CalibrationResult(CalibrationMeasures):
    """The measures with the risk-coverage curve, the thresholds and the tests."""

    coverage: tuple[float, ...]
    risk: tuple[float, ...]
    """Selective error at each of `coverage`."""
    n_right: tuple[int, ...]
    n_wrong: tuple[int, ...]
    """Right and wrong verdicts in ten equal ranges of confidence."""
    selective: tuple[SelectiveResult, ...]
    """Empty where the confidences do not vary: there is nothing to choose by."""
    varies: bool = True
    """Whether there are two different confidences or more."""
    ece_test: TestResult | None = None
    """Of being calibrated in every bin; None where the confidences do not vary, or in results of an earlier program."""
    direction_test: TestResult | None = None
    """Of mean confidence against the share right."""


class CorrectionResult(Frozen):
    """The pass rate on cases that no expert rated, from a judge that errs in known ways."""

    n_unrated: int
    n_rated: int
    judged: MetricResult
    """Share that the judge calls positive on the unrated cases, as it stands."""
    gold: MetricResult
    """Share positive on the rated cases alone."""
    rogan_gladen: MetricResult
    prediction_powered: MetricResult


class JudgeAudit(Frozen):
    """One judge or baseline."""

    statistics: dict[str, MetricResult]
    power: PowerResult
    generators: tuple[GeneratorResult, ...] = ()
    slices: dict[str, tuple[GeneratorResult, ...]] = {}  # noqa: RUF012  (pydantic copies it)
    """Name of a slice -> its values, those with most rows first."""
    heterogeneity: tuple[HeterogeneityResult, ...] = ()
    self_preference: SelfPreferenceResult | None = None
    calibration: CalibrationResult | None = None
    correction: CorrectionResult | None = None


class PermutationResult(Frozen):
    """A paired permutation test of one statistic; `adjusted_p` by Holm over all tests of the page."""

    difference: MetricResult
    p: Number
    adjusted_p: float | None
    n_groups: int = 0
    """Groups in which the two differ."""


class PairResult(Frozen):
    """Two judges on the cases that both were to answer."""

    a: str
    b: str
    n: int
    only_a: int
    only_b: int
    p: float
    """Of the difference in accuracy, by sign flips of groups; with a row per group that is McNemar's test."""
    method: str
    adjusted_p: float
    """By Holm over all tests of the page."""
    tests: dict[str, PermutationResult]
    power: PowerResult
    n_groups: int = 0
    """Groups in which the two differ."""
    n_both_answered: int | None = None
    """Of `n`, those with a verdict from both; None in results of an earlier program."""


class Audit(Frozen):
    """Everything beyond the table of metrics."""

    judges: dict[str, JudgeAudit]
    """Judges first, then baselines."""
    pairs: tuple[PairResult, ...]
    n_tests: int
    """Tests of the page that Holm's method corrects for: `claims.tests_of`."""
    n_statistic_tests: int = 0
    """In results of an earlier program: permutation tests, once a family of their own."""
    statements: tuple[str, ...] = ()
    about: tuple[tuple[str, ...], ...] = ()
    """The judges that each statement is about; none where it is about the rows alone."""


class Claim(Frozen):
    """One test of the family, and whether a page may claim what it tests."""

    kind: Kind
    about: tuple[str, ...]
    """What it is about: the judge; of a difference both; none where it is about the rows alone."""
    what: str
    """The statistic (`accuracy`, `macro_f1`, ...), of calibration `ece` or `direction`, of a probe the probe."""
    p: float | None
    """Before correction, by groups; None where it could not be tested: it is no part of the family."""
    n_groups: int
    """Groups that carry the test."""
    method: str
    low: float | None = None
    """The interval that is shown beside the test; None where there is none."""
    high: float | None = None
    null: float = 0.0
    """The value that the hypothesis names, in the interval's unit."""
    adjusted_p: float | None = None
    """By Holm's method over all tests of the page."""
    claimed: bool = False


class UnpairedResult(Frozen):
    """Accuracy of `a` less that of `b`, on cases of which none is shared."""

    a: str
    b: str
    n_a: int
    n_b: int
    accuracy_a: float
    accuracy_b: float
    p: float
    """Two-sided, groups counted: `by_generator.rate_heterogeneity` with judges in place of generators."""
    method: str
    n_groups: int = 0
    """Of both sets together."""


class ClassResult(Frozen):
    """One label of one model; None where undefined."""

    precision: Number
    recall: Number
    f1: Number
    support: int


class Confusion(Frozen):
    """Counts of gold label (row) by what the judge said (column); the last column is `unparsed`."""

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]

    @model_validator(mode="after")
    def _check_shape(self) -> Confusion:
        n_rows, n_columns = len(self.rows), len(self.columns)
        if n_columns < n_rows or [len(row) for row in self.counts] != [n_columns] * n_rows:
            raise ValueError(f"expected {n_rows} rows of {n_columns} counts")
        return self


class PromptsResult(Frozen):
    """What shortening prompts to `max_prompt_tokens` took away, over the cases with a gold label."""

    n: int
    """Prompts of which it is known."""
    n_shortened: int
    n_words_cut: int
    whole: MetricResult | None
    """Accuracy where the prompt showed the case whole; None where no prompt did."""
    shortened: MetricResult | None
    """Accuracy where words were cut off; None where no prompt lost any."""


class LabelsResult(Frozen):
    """How much of a judge's answer its labels are, where labels were scored, as means over all cases with scores."""

    n: int
    """Cases with scores."""
    n_without: int
    """Cases for which an endpoint told none."""
    outside: float
    """Probability of all that is no label."""
    outside_least: float
    """The least that it can be, with what an endpoint did not tell counted as labels."""
    n_bounded: int
    """Cases in which an endpoint did not tell the probability of some label, so that a bound stands for it."""
    otherwise_written: float
    """Probability of labels in other case, or after a space or a line break, which is counted as the label's."""


class ModelResult(Frozen):
    """How one model or baseline did."""

    role: Role
    n: int
    """Cases with a gold label that it was to answer, see `classification.due_cases`: what its numbers rest on."""
    n_unparsed: int
    """Of them, those without a verdict; they count as wrong."""
    unparsed_reasons: dict[str, int]
    n_truncated: int | None
    """Answers that the token limit cut off; None if not recorded."""
    n_missing: int
    """Cases with a gold label that it gave no row for; those that it was to answer are in `n`, as `absent`."""
    n_unmatched: int
    """Answers to cases that have no gold label or are not in the set."""
    metrics: Annotated[dict[str, MetricResult], _HAS_ACCURACY]
    per_class: dict[str, ClassResult]
    confusion: Confusion
    chance_p: float
    """Two-sided p of its accuracy against uniform guessing, as `chance_test` has it."""
    lineage: dict[str, Any] | None
    seconds: float | None
    lenient: bool
    usage: dict[str, Any] | None = None
    """Of a model behind an endpoint: calls, tokens, cost and latency, as `inference.replies.Usage` counts them."""
    chance_test: TestResult | None = None
    """None in results of an earlier program."""
    unanswered: dict[str, int] = {}  # noqa: RUF012  (pydantic copies it)
    """Kind of `classification.KINDS` -> cases without a verdict; empty in results of an earlier program."""
    prompts: PromptsResult | None = None
    """How many prompts lost words; None where it is not known."""
    labels: LabelsResult | None = None
    """None where no labels were scored."""

    @property
    def n_answered(self) -> int:
        """Cases with a verdict."""
        return self.n - self.n_unparsed

    @property
    def n_right(self) -> int:
        """Cases with the expert's label."""
        return sum(row[place] for place, row in enumerate(self.confusion.counts))

    @field_validator("lineage")
    @classmethod
    def _check_lineage(cls, lineage: dict[str, Any] | None) -> dict[str, Any] | None:
        if lineage is not None:
            StoredLineage.model_validate(lineage)
        return lineage


class DifferenceResult(Frozen):
    """Metric of `a` minus metric of `b` in points; None where undefined."""

    value: Number
    low: Number
    high: Number


class McNemarResult(Frozen):
    """Rows that only one of the two got right, and McNemar's two-sided p, which takes rows as independent.

    Whether the two differ is for `ComparisonResult.tests` and `claims` to say.
    """

    only_a: int
    only_b: int
    p: float
    method: str
    adjusted_p: float | None = None
    """The p of `ComparisonResult.tests["accuracy"]`, by Holm's method over all tests of the page."""


class SharedCases(Frozen):
    """Two judges on the cases that both gave a verdict for, and on those that only one of them did."""

    n: int
    """Cases with a verdict from both."""
    accuracy_a: float | None
    accuracy_b: float | None
    differences: dict[str, DifferenceResult]
    """Metric of `a` minus metric of `b` on these cases; empty without one."""
    points: float
    """What these cases contribute to the difference in accuracy over all; the rest comes from the others."""
    n_only_a: int
    """Cases with a verdict from `a` alone."""
    accuracy_only_a: float | None
    n_only_b: int
    accuracy_only_b: float | None
    n_neither: int


class ComparisonResult(Frozen):
    """Two judges on the cases that both were to answer, a case without a verdict being wrong."""

    a: str
    b: str
    kind: ComparisonKind
    n: int
    n_unpaired: int
    """Cases that only one of the two was to answer."""
    differences: Annotated[dict[str, DifferenceResult], _HAS_ACCURACY]
    mcnemar: McNemarResult
    tests: dict[str, TestResult] = {}  # noqa: RUF012  (pydantic copies it)
    """`accuracy`, `macro_f1` -> the test that counts groups; empty in results of an earlier program."""
    shared: SharedCases | None = None
    """None where both gave a verdict for every case, and in results of an earlier program."""


class RepeatResult(Frozen):
    """How far several verdicts of one judge on one case agree."""

    n_cases: int
    """Cases with several verdicts."""
    n_verdicts: int
    n_without: int
    """Among these: answers without a verdict."""
    consistent: MetricResult
    """Share of the cases with two or more readable verdicts on which all of these are the same."""
    pairwise: Number
    """Mean over the same cases of the chance that two verdicts of the case agree; None without such a case."""
    tied: tuple[str, ...] = ()
    """Cases on which no label has the most verdicts."""


class GuardResult(Frozen):
    """Texts of cases that look like a part of the prompt (`task.guard`), over all cases."""

    is_on: bool
    """Whether prompts showed them broken; False where they reached the models as they stand."""
    n_cases: int
    """Cases with such a text."""
    n_pieces: int


class Results(Frozen):
    """Everything an evaluation measured."""

    version: Literal[1] = 1
    task: str
    split: str
    n_cases: int
    """Cases with a gold label."""
    n_groups: int
    n_without_gold: int
    train_n: int | None
    labels: tuple[str, ...]
    ordered: bool
    positive: str | None
    chance: float
    """Expected accuracy of uniform guessing."""
    contract: dict[str, Any]
    level: float
    n_resamples: int
    seed: int
    reference: str | None
    models: dict[str, ModelResult]
    """In the order in which the models were given, baselines last."""
    skipped_baselines: dict[str, str]
    comparisons: tuple[ComparisonResult, ...]
    leakage: dict[str, Any]
    statements: tuple[str, ...] = ()
    audit: Audit | None = None
    """The fuller analysis; None in results of an earlier program."""
    reasoning: ReasoningResults | None = None
    """The reasoning beside the labels; None where the recipe did not ask for it."""
    preferences: Preferences | None = None
    """What order and length do to verdicts on pairs, and what becomes of the systems; None for other tasks."""
    probes: Probes | None = None
    """How the judges react to changes that should not affect them; None where none was asked for."""
    claims: tuple[Claim, ...] = ()
    """Every test of the page, corrected together, and what may be claimed; empty in results of an earlier program."""
    unpaired: tuple[UnpairedResult, ...] = ()
    """Judges that share no case."""
    experts: ExpertsResult | None = None
    """Where cases have several experts' ratings: their agreement, and the judges beside them."""
    scores: ScoresResult | None = None
    """Where judges give numbers: how they rank, and how near they are to the experts'."""
    repeats: dict[str, RepeatResult] = {}  # noqa: RUF012  (pydantic copies it)
    """Judges that gave several verdicts on one case."""
    guard: GuardResult | None = None
    """What the guard did to the prompts; None where verdicts were made by another program."""
    read_as: tuple[str, ...] = ()
    """Of files by other programs: which columns were read as what, and the values found."""

    def of_role(self, role: Role) -> dict[str, ModelResult]:
        """The models, or the baselines, by name and in order."""
        return {name: model for name, model in self.models.items() if model.role == role}

    def comparison(self, a: str, b: str) -> ComparisonResult | None:
        """The comparison of `a` with `b`, if it was made."""
        return next((c for c in self.comparisons if (c.a, c.b) == (a, b)), None)

    def to_json(self) -> dict[str, Any]:
        """The content of `results.json`."""
        return self.model_dump(mode="json")

    @classmethod
    def from_json(cls, value: Any) -> Results:
        """The results in a parsed `results.json`. Raises RunError if it is of another version or damaged."""
        version = value.get("version") if isinstance(value, Mapping) else None
        if version != RESULTS_VERSION:
            message = f"results are of version {version!r}, expected {RESULTS_VERSION}"
            raise RunError(f"{message}. Run `medjudge evaluate` again.")
        try:
            return cls.model_validate(value)
        except ValidationError as error:
            place = ".".join(str(part) for part in error.errors()[0]["loc"])
            wanted = "expected what this version writes. Run `medjudge evaluate` again."
            raise RunError(f"results are damaged at {place!r}, {wanted}") from None
