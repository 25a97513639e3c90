"""medjudge from Python and notebooks: load a judge, judge rows, measure verdicts.

    from medjudge import Judge, load_cases, score

    judge = Judge("runs/demo/merge/model")        # its contract.json says the task; `task="equivalence"` does, too
    cases = load_cases("rows.csv", task=judge)
    judged = judge.judge(cases)
    judged.to_frame()
    scores = score(judged)
    scores.to_frame(), scores.plots(), scores.statements

No text of a case is shown by any of these objects; the frames hold ids, labels and numbers.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from medjudge import artifacts
from medjudge.data.columns import Rows
from medjudge.data.shapes import frame_rows
from medjudge.data.sources import plain, read_source
from medjudge.errors import ConfigError, DataError
from medjudge.inference.loader import LoadedWhenAsked, LoadSettings
from medjudge.judging import judge as judging
from medjudge.metrics.result_types import Results
from medjudge.metrics.summary import AnalysisOptions, JudgeFacts, summarise
from medjudge.recipe import recipe_from_tree
from medjudge.records import Case, Judgement, Unparsed, Verdict
from medjudge.settings.data import DataConfig
from medjudge.settings.endpoint import is_endpoint, parse_endpoint
from medjudge.tasks.catalog import TASKS
from medjudge.tasks.contract import TaskContract

if TYPE_CHECKING:
    import pandas as pd

    from medjudge.commands.score import ScoreOptions
    from medjudge.metrics.calibrators import Calibrator
    from medjudge.reporting.figures import Picture
    from medjudge.tasks.scale import LabelScale

    Verdicts: TypeAlias = "Judged | str | Path | pd.DataFrame"

TAKES = "score takes files, pandas frames or what `Judge.judge` gave"
N_SHOWN = 10
"""Rows of a frame that a notebook shows."""


def contract_of(task: str | TaskContract, settings: Mapping[str, Any] | None = None) -> TaskContract:
    """The contract of a task by its kind, with settings as in a recipe's `[task]`, or of a contract with these changed.

    Raises ConfigError for a kind or a setting that there is not.
    """
    if not isinstance(task, TaskContract) and task not in TASKS:
        raise ConfigError(f"no task is called {task!r}: expected one of {', '.join(TASKS)}.")
    if isinstance(task, TaskContract) and not settings:
        return task
    own = task.model_dump(mode="json") if isinstance(task, TaskContract) else {"kind": task}
    tree = {"name": "python", "task": {**own, **(settings or {})}}
    contract: TaskContract = recipe_from_tree(tree, [], where="task").contract
    return contract


def load_cases(
    source: str | Path,
    task: str | TaskContract | Judge,
    *,
    fields: Mapping[str, str] | None = None,
    where: Mapping[str, str | int | float | bool | None] | None = None,
    group_by: Sequence[str] = (),
    slices: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
) -> list[Case]:
    """The cases of a file, a hub data set or `builtin:NAME`.

    task: its kind, a contract, or the judge that the cases are for. fields: contract field -> column. where: keep rows
    whose columns equal these. slices: columns kept for tables, such as `generator`. settings: of the task, as in a
    recipe. Raises DataError for rows that cannot be used.
    """
    task = task.contract if isinstance(task, Judge) else task
    config = DataConfig(fields=dict(fields or {}), group_by=tuple(group_by), slices=tuple(slices))
    return list(read_source(str(source), contract_of(task, settings), config, where=where).cases)


@dataclass(frozen=True)
class Judge:
    """A model (folder, hub id, `vllm:` of either, or endpoint) under one task contract.

    Weights are loaded when they are first needed. A folder that medjudge wrote says its task and settings itself; the
    others need `task`.
    """

    model: str | Path
    task: str | TaskContract | None = None
    """None takes the contract that the model was trained under; a kind alone takes its settings from there, too."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Of the task, as in a recipe's `[task]`, where they are to differ from those of the model."""
    name: str = ""
    batch_tokens: int = 16384

    @cached_property
    def contract(self) -> TaskContract:
        """What is asked and accepted. Raises ConfigError where neither `task` nor the model says."""
        if isinstance(self.task, TaskContract):
            return contract_of(self.task, self.settings)
        own = judging.contract_for([str(self.model)], self.task)
        return contract_of(own if own is not None else str(self.task), self.settings)

    def calibrator(self, mode: Literal["generate", "labels"] = "generate") -> Calibrator | None:
        """What `medjudge calibrate` saved with the model for this way of asking; `judge` applies it to confidences."""
        return self._asked(mode).saved_calibrator()

    def judge(self, cases: Sequence[Case] | str | Path, mode: Literal["generate", "labels"] = "generate") -> Judged:
        """Verdicts on these cases, one per case and in their order.

        mode: `generate` writes an answer and reads it; `labels` scores the labels alone, one pass per case.
        Raises ConfigError where the model was trained for another task, label set or answer form.
        """
        from medjudge.judging.calibrated import apply_to

        rows = load_cases(cases, self.contract) if isinstance(cases, str | Path) else list(cases)
        asked = self._asked(mode)
        judgements, answers = asked.judge(rows)
        calibrator = asked.saved_calibrator()
        if calibrator is not None:
            judgements = apply_to(calibrator, judgements)
        cut = tuple(answer.n_words_cut for answer in answers)
        return Judged(asked.name, rows, judgements, self.contract, cut)

    def _asked(self, mode: Literal["generate", "labels"]) -> judging.Judge:
        settings = judging.JudgeSettings(self._load, mode)
        asked = judging.Judge(
            self.name or _short_name(str(self.model)), str(self.model), self.contract, settings, engine=self._engine
        )
        asked.announce()
        return asked

    @cached_property
    def _load(self) -> LoadSettings:
        return LoadSettings(batch_tokens=self.batch_tokens)

    @cached_property
    def _engine(self) -> LoadedWhenAsked:
        """Shared by all that is asked, so that weights are loaded once."""
        return LoadedWhenAsked(str(self.model), self._load)

    def __repr__(self) -> str:
        """In one line, without text of a case."""
        return f"Judge({str(self.model)!r}, task={self.contract.kind!r})"


def _short_name(model: str) -> str:
    return parse_endpoint(model).model if is_endpoint(model) else Path(model).name


@dataclass(frozen=True)
class Judged:
    """One judge's verdicts beside their cases."""

    name: str
    cases: list[Case]
    judgements: list[Judgement]
    contract: TaskContract
    n_words_cut: Sequence[int] = ()
    """Words that each prompt lost so that it fits; () where it is not known."""

    def __len__(self) -> int:
        """Cases."""
        return len(self.judgements)

    def __iter__(self) -> Any:
        """The judgements, one per case."""
        return iter(self.judgements)

    @property
    def n_unparsed(self) -> int:
        """Answers that could not be read."""
        return sum(isinstance(one, Unparsed) for one in self.judgements)

    def to_frame(self) -> pd.DataFrame:
        """A row per case: id, group, expert label, label, confidence, whether it is right, why it is unreadable."""
        import pandas as pd

        return pd.DataFrame(
            [self._row(case, judgement) for case, judgement in zip(self.cases, self.judgements, strict=True)],
            columns=None if self.cases else ["case_id"],
        )

    def _row(self, case: Case, judgement: Judgement) -> dict[str, Any]:
        verdict = judgement if isinstance(judgement, Verdict) else None
        return {
            "case_id": case.case_id,
            "group": case.group,
            **case.slices,
            "gold": case.gold,
            "label": verdict.label if verdict else None,
            "confidence": verdict.confidence if verdict else None,
            "correct": None if case.gold is None else verdict is not None and verdict.label == case.gold,
            "unparsed_reason": judgement.reason if isinstance(judgement, Unparsed) else None,
        }

    def score(self, **options: Any) -> Scores:
        """As `medjudge.score` of this judge alone."""
        return score(self, **options)

    def __repr__(self) -> str:
        """In one line, without text of a case."""
        return f"Judged({self.name!r}: {len(self):,} cases, {self.n_unparsed:,} unparsed)"

    def _repr_html_(self) -> str:
        frame = self.to_frame()
        more = f"<p>{N_SHOWN} of {len(frame):,} are shown.</p>" if len(frame) > N_SHOWN else ""
        return f"<p>{escape(repr(self))}</p>{frame.head(N_SHOWN).to_html(index=False)}{more}"


class Pictures(list["Picture"]):
    """Pictures that a notebook shows one under the other."""

    def _repr_html_(self) -> str:
        return "".join(
            f'<figure><figcaption>{escape(one.title)}</figcaption><img style="max-width: 100%" alt="{escape(one.alt)}" '
            f'src="data:image/png;base64,{base64.b64encode(one.png()).decode()}"></figure>'
            for one in self
        )


@dataclass(frozen=True)
class Scores:
    """What was measured: the content of `results.json`, as frames, pictures and sentences."""

    results: Results

    @property
    def statements(self) -> tuple[str, ...]:
        """What the tests support, in plain words."""
        audit, probes = self.results.audit, self.results.probes
        return (
            *self.results.statements,
            *(probes.statements if probes else ()),
            *(audit.statements if audit else ()),
        )

    def to_frame(self) -> pd.DataFrame:
        """A row per judge and statistic: value, interval, rows, how the interval was made."""
        import pandas as pd

        audit = self.results.audit
        if audit is None:
            raise DataError("these results hold no audit: they were written by an earlier program. Score them again.")
        return pd.DataFrame(
            [
                {"judge": name, "statistic": statistic, **metric.model_dump()}
                for name, judge in audit.judges.items()
                for statistic, metric in judge.statistics.items()
            ]
        )

    def generators(self) -> pd.DataFrame:
        """A row per judge and generator: n, prevalence, rates; empty where no generator is named."""
        import pandas as pd

        audit = self.results.audit
        rows = []
        for name, judge in (audit.judges if audit else {}).items():
            for row in judge.generators:
                rows.append(
                    {
                        "judge": name,
                        "generator": row.generator,
                        "n": row.n,
                        "n_unparsed": row.n_unparsed,
                        "prevalence": row.prevalence.value if row.prevalence else None,
                        "always_positive_f1": row.always_positive_f1,
                        **{key: metric.value for key, metric in row.statistics.items()},
                        "minimum_detectable": row.minimum_detectable,
                    }
                )
        return pd.DataFrame(rows)

    def plots(self) -> Pictures:
        """The report's pictures; a notebook shows them all, with their words for who cannot see them."""
        from medjudge.reporting.audit_figures import audit_pictures
        from medjudge.reporting.figures import result_pictures
        from medjudge.reporting.probe_tables import probe_pictures

        return Pictures([*result_pictures(self.results), *audit_pictures(self.results), *probe_pictures(self.results)])

    def plot(self, name: str = "metrics") -> Picture:
        """One of the report's pictures by its name. Raises ConfigError with the names there are."""
        pictures = {picture.name: picture for picture in self.plots()}
        if name not in pictures:
            raise ConfigError(f"there is no picture {name!r} of these scores: choose from {', '.join(pictures)}.")
        return pictures[name]

    def report(self, folder: str | Path, title: str = "") -> Path:
        """Writes the page and its pictures into `folder`; returns the page's path."""
        from medjudge.reporting.html import write_report
        from medjudge.reporting.inputs import ReportInputs

        path = Path(folder)
        artifacts.make_folder(path)
        return write_report(ReportInputs(title=title or f"Scores: {self.results.task}", results=self.results), path)

    def __rich__(self) -> Any:
        """Tables and sentences for a terminal."""
        from rich import get_console
        from rich.console import Group
        from rich.text import Text

        from medjudge.reporting.tables import audit_tables, results_tables

        width = get_console().width
        return Group(
            *map(Text, self.results.read_as),
            *results_tables(self.results, width),
            *audit_tables(self.results, width),
            *map(Text, self.statements),
        )

    def __repr__(self) -> str:
        """In one line, without text of a case."""
        judges = ", ".join(
            f"{name} accuracy {100 * (model.metrics['accuracy'].value or 0):.1f} %"
            for name, model in self.results.of_role("model").items()
        )
        return f"Scores({self.results.n_cases:,} cases: {judges})"

    def _repr_html_(self) -> str:
        frame = self.to_frame().pivot(index="statistic", columns="judge", values="value")
        frame = frame.loc[list(dict.fromkeys(self.to_frame()["statistic"]))]
        lines = "".join(f"<li>{escape(line)}</li>" for line in (*self.results.read_as, *self.statements))
        frame = frame.map(lambda value: "" if value is None or value != value else f"{value:.3f}")
        return f"{frame.to_html()}<ul>{lines}</ul>"


def score(
    verdicts: Verdicts | Sequence[Verdicts] | Mapping[str, str | Path | pd.DataFrame],
    *,
    gold: str | Path | pd.DataFrame | None = None,
    task: str | TaskContract | None = None,
    labels: Sequence[str] | None = None,
    ordered: bool = False,
    positive: str | None = None,
    columns: Mapping[str, str] | None = None,
    judges: Mapping[str, str] | None = None,
    gold_columns: Mapping[str, str] | None = None,
    reference: str | None = None,
    level: float = 0.95,
    n_resamples: int = 2000,
    seed: int = 42,
    **options: Any,
) -> Scores:
    """Verdicts against the experts: what `Judge.judge` gave, or files and pandas frames as `medjudge score` takes them.

    The arguments are keywords, by the names of the command's options, and no options object: a notebook completes them,
    and a call is read without looking up a second type. Those that only few need come as `options`.

    verdicts: one or several of these, or judge -> file or frame. Of files and frames: gold (a file, a frame, or a
    column of the verdicts), task or labels (`["no", "yes"]` or "no,yes"), columns, judges and gold_columns as the
    command's --map, --judge and --gold-map; `labels` of two has its second as positive unless `positive` says
    otherwise. options: the others of `ScoreOptions`: aliases, threshold, gold_threshold, where (a mapping or
    `["column=value"]`), train, train_where, families, confidence_max. What was read as what stands in
    `Scores.results.read_as`. Raises DataError or ConfigError as the command does.
    """
    import pandas as pd

    if isinstance(verdicts, Judged | str | Path | pd.DataFrame):
        verdicts = [verdicts]
    named = dict(verdicts) if isinstance(verdicts, Mapping) else None
    if not isinstance(verdicts, Mapping | Sequence):
        raise ConfigError(f"{TAKES}, got {type(verdicts).__name__}.")
    items: list[Any] = list(named.values()) if named is not None else list(verdicts)
    judged = [item for item in items if isinstance(item, Judged)]
    if judged:
        if len(judged) < len(items) or named is not None:
            raise ConfigError("score takes verdicts from `Judge.judge` or files, not both at once.")
        return _score_judged(judged, reference, level, n_resamples, seed)
    from medjudge.commands.score import label_scale
    from medjudge.commands.score import score as score_sources

    if (task is None) == (labels is None):
        raise ConfigError("name the scale of the labels: `task` or `labels`, one of the two.")
    scale: TaskContract | LabelScale = (
        contract_of(task) if task is not None else label_scale(labels or (), ordered, positive)
    )
    given: dict[str, Any] = {"columns": columns or {}, "judges": judges or {}, "gold_columns": gold_columns or {}}
    given |= {"gold": None if gold is None else _source(gold, "gold frame")}
    given |= {"reference": reference, "level": level, "n_resamples": n_resamples, "seed": seed, **options}
    names = list(named) if named is not None else [_frame_name(at, len(items)) for at in range(len(items))]
    sources = [
        f"{name}={item}" if named is not None and isinstance(item, str | Path) else _source(item, name)
        for name, item in zip(names, items, strict=True)
    ]
    return Scores(score_sources(sources, scale, _score_options(given)).results)


def _frame_name(at: int, n: int) -> str:
    return "judge" if n == 1 else f"judge {at + 1}"


def _source(item: str | Path | pd.DataFrame, name: str) -> str | Rows:
    """A path, or the rows of a frame under a name. Raises ConfigError for anything else."""
    import pandas as pd

    if isinstance(item, pd.DataFrame):
        return Rows(name, frame_rows(item, name))
    if not isinstance(item, str | Path):
        raise ConfigError(f"{TAKES}, got {type(item).__name__}.")
    return str(item)


def _score_options(given: Mapping[str, Any]) -> ScoreOptions:
    """The options by name. Raises ConfigError for one that there is not."""
    from medjudge.commands.score import ScoreOptions

    known = {one.name for one in fields(ScoreOptions)}
    for name in given:
        if name not in known:
            raise ConfigError(f"score has no option {name!r}: expected one of {', '.join(sorted(known))}.")
    where = given.get("where") or ()
    if isinstance(where, Mapping):
        where = [f"{column}={plain(value)}" for column, value in where.items()]
    texts = {
        name: {plain(key): plain(value) for key, value in (given.get(name) or {}).items()}
        for name in ("columns", "judges", "gold_columns", "aliases", "families")
    }
    return ScoreOptions(**{**given, **texts, "where": [where] if isinstance(where, str) else list(where)})


def _score_judged(judged: Sequence[Judged], reference: str | None, level: float, n_resamples: int, seed: int) -> Scores:
    first = judged[0]
    if len({one.name for one in judged}) < len(judged):
        raise ConfigError("two judges have one name: give each `Judge(.., name=..)`.")
    if any(one.contract.fingerprint() != first.contract.fingerprint() for one in judged):
        raise ConfigError("the judges were asked under different contracts: score them apart.")
    cases = {case.case_id: case for one in judged for case in one.cases}
    return Scores(
        summarise(
            list(cases.values()),
            {one.name: one.judgements for one in judged},
            contract=first.contract,
            split="python",
            facts={
                one.name: JudgeFacts(
                    words_cut={case.case_id: n for case, n in zip(one.cases, one.n_words_cut, strict=True)}
                )
                for one in judged
                if one.n_words_cut
            },
            options=AnalysisOptions(reference=reference, level=level, n_resamples=n_resamples, seed=seed),
        )
    )
