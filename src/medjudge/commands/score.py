"""Any judge's verdicts against the experts, without a model: `medjudge score VERDICTS --gold PATH`."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from pydantic import ValidationError

from medjudge import artifacts
from medjudge.commands.score_numbers import NumberOptions, experts_numbers, with_thresholds
from medjudge.data.cells import Scale, shown_id
from medjudge.data.columns import Rows, Table, check_where, load_table, no_column
from medjudge.data.leakage import LeakageReport, check_leakage
from medjudge.data.rater_cells import settled
from medjudge.data.ratings import GoldRule, ratings_sentence
from medjudge.data.sources import parse_where, read_source
from medjudge.data.verdict_cells import MIN_PARTNERS, MIN_READ, Facts
from medjudge.data.verdict_files import (
    GoldFile,
    Reading,
    VerdictFile,
    judge_name,
    merged,
    one_writing,
    read_gold,
    read_verdicts,
    slice_names,
    to_cases,
)
from medjudge.data.verdict_formats.catalog import AUTO, PLAIN, check_name
from medjudge.data.verdict_formats.layout import Asked
from medjudge.data.verdict_rows import VerdictRow, write_verdicts
from medjudge.errors import ConfigError, DataError
from medjudge.inference.embeddings import embed_or_why_not
from medjudge.metrics.baselines import BASELINES, EARLIER, Baselines, every_baseline, without_names_of
from medjudge.metrics.repeats import repeat_consistency, repeat_sentence
from medjudge.metrics.result_types import RepeatResult, Results
from medjudge.metrics.score_results import ScoreKind
from medjudge.metrics.summary import AnalysisOptions, TrainingRows, summarise
from medjudge.metrics.wording import counted
from medjudge.records import Case, Judgement
from medjudge.runs.output_folder import OutputFolder, Record
from medjudge.runs.provenance import Files, data_files, record_command
from medjudge.settings.data import DataConfig, GoldRuleName, GoldTies
from medjudge.settings.evaluate import ReportConfig
from medjudge.settings.rewards import EmbeddingSettings
from medjudge.tasks.contract import TaskContract
from medjudge.tasks.scale import LabelScale
from medjudge.version import __version__

FILE_ENDINGS = (".jsonl", ".json", ".csv", ".tsv", ".gz", ".xlsx", ".parquet", ".eval")
"""Endings by which --gold names a file, be it there or not; another name may be that of a column."""
N_SHOWN = 3
"""Ids without a partner that are shown."""


@dataclass(frozen=True, slots=True)
class ScoreOptions:
    """How files are read and what is measured."""

    columns: Mapping[str, str] = field(default_factory=dict)
    """Field -> column of the verdict files, or "" for none."""
    judges: Mapping[str, str] = field(default_factory=dict)
    """Judge -> column of its verdicts, where a file has several such columns."""
    gold: str | Rows | None = None
    """A file of expert labels, or the column of the verdict files that holds them; None: the column `gold`."""
    gold_columns: Mapping[str, str] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)
    """What a program writes -> the label that it means, or "" for no verdict."""
    threshold: float | None = None
    """Verdicts that are numbers: from here on they are the positive label."""
    gold_threshold: float | None = None
    scores: ScoreKind | None = None
    """What the verdicts' numbers are, where they are measured as such: a probability of the positive label (0 to 1, or
    per cent), a logit, or any other number."""
    threshold_rule: str | None = None
    """With `scores`: how a threshold is chosen on a part of the cases, as `ThresholdRule.parse` takes it."""
    calibration_share: float = 0.5
    """Share of the groups that is this part."""
    gold_rule: GoldRuleName | None = None
    """How a case's label is made of several experts' ratings; None: `adjudicated` where a case has such a label, else
    `majority`."""
    gold_ties: GoldTies = "leave_out"
    where: Sequence[str] = ()
    """`COLUMN=VALUE`: holds for every file that has the column, of verdicts or of expert labels."""
    train: str | None = None
    """Labelled rows of the task, for baselines and the leakage check."""
    train_where: Sequence[str] = ()
    families: Mapping[str, str] = field(default_factory=dict)
    confidence_max: float = 1.0
    format: str = AUTO
    """The program that wrote the files: a name of `verdict_formats.catalog.FORMATS`, `rows`, or as the files tell."""
    min_read: float = MIN_READ
    """Share of a judge's filled cells that must be labels; less is a mistake in reading, and stops."""
    reference: str | None = None
    level: float = 0.95
    n_resamples: int = 2000
    seed: int = 42

    def __post_init__(self) -> None:
        """Raises ConfigError for a number that is none: `nan` passes any bound, and compares with nothing."""
        for one in fields(self):
            value = getattr(self, one.name)
            if isinstance(value, float) and not math.isfinite(value):
                raise ConfigError(f"{one.name} is {value}, expected a finite number.")


class MoreScoreOptions(TypedDict, total=False):
    """Keywords of Python's `score` that only few need: fields of `ScoreOptions`, and `label_scale`'s two."""

    ordered: bool
    positive: str | None
    gold_columns: Mapping[str, str]
    aliases: Mapping[str, str]
    threshold: float | None
    gold_threshold: float | None
    scores: ScoreKind | None
    threshold_rule: str | None
    calibration_share: float
    gold_rule: GoldRuleName | None
    gold_ties: GoldTies
    where: Mapping[str, Any] | Sequence[str]
    """A mapping, or `["column=value"]`."""
    train: str | None
    train_where: Sequence[str]
    families: Mapping[str, str]
    confidence_max: float
    format: str
    min_read: float
    reference: str | None
    level: float
    n_resamples: int
    seed: int


@dataclass(frozen=True, slots=True)
class Scored:
    """What was read and what it measured."""

    results: Results
    cases: Sequence[Case]
    judgements: Mapping[str, Sequence[Judgement]]
    completions: Mapping[tuple[str, str], str]


@artifacts.private_files()
def score_files(
    paths: Sequence[str],
    contract: TaskContract | LabelScale,
    out_dir: Path,
    options: ScoreOptions,
    say: Callable[[str], None] | None = None,
) -> Results:
    """Writes `results.json`, `verdicts.jsonl` and the page. The folder `out_dir` appears whole or not at all.

    say: as of `score`.
    """
    folder = OutputFolder.new(out_dir, "score")
    scored = score(paths, contract, options, say)
    files = _files_read(paths, options)
    inputs = {
        "version": __version__,
        "task": contract.kind,
        "labels": list(contract.labels),
        "contract": contract.fingerprint(),
        **{f"file {path}": entry["sha256"] for path, entry in files.items()},
    }
    with folder.writing(inputs) as work:
        record_command(work)
        artifacts.write_json(work / artifacts.RESULTS, scored.results.to_json())
        write_verdicts(work / artifacts.VERDICTS, _rows(scored))
        from medjudge.reporting.gather import gather
        from medjudge.reporting.html import write_report

        title = ReportConfig(title=f"{folder.final.name}: {scored.results.task}")
        write_report(gather(work, title, versions=artifacts.package_versions()), work)
        folder.finish(Record(inputs, config=_settings(options), seed=options.seed, files=files))
    return scored.results


def _files_read(paths: Sequence[str], options: ScoreOptions) -> Files:
    """Files of verdicts, of expert labels and of training rows."""
    gold, _ = _gold_source(options)
    named = [source for _, source in map(_named, paths) if isinstance(source, str)]
    return data_files([*named, gold if isinstance(gold, str) else None, options.train])


def _settings(options: ScoreOptions) -> dict[str, Any]:
    """The options as JSON; rows in memory by their name."""
    gold = options.gold.name if isinstance(options.gold, Rows) else options.gold
    values = {one.name: getattr(options, one.name) for one in fields(options)} | {"gold": gold}
    return {name: dict(value) if isinstance(value, Mapping) else value for name, value in values.items()}


def score(
    sources: Sequence[str | Rows],
    contract: TaskContract | LabelScale,
    options: ScoreOptions,
    say: Callable[[str], None] | None = None,
) -> Scored:
    """Reads, joins by case id and measures. say: is given each sentence on what was read as what, before the numbers.

    Raises DataError where nothing can be joined, or what was read is no verdict.
    """
    read = _read(sources, contract, options)
    rule = gold_rule(contract, options, read.facts)
    facts = {case_id: settled(known, rule) for case_id, known in read.facts.items()}
    cases = to_cases(facts)
    if line := ratings_sentence(cases, rule):
        read = replace(read, read_as=(*read.read_as, line))
    for line in read.read_as:
        if say is not None:
            say(line)
    statements: list[str] = []
    scored = None
    if (numbers := _number_options(options)) is not None:
        of_experts = experts_numbers(facts, contract.labels, ordered=contract.ordered, of_median=rule.rule == "median")
        thresholded = with_thresholds(
            cases, read.judgements, of_experts, numbers, contract.labels, contract.positive, options.seed
        )
        cases, scored, statements = thresholded.cases, thresholded.scored, thresholded.statements
        read = replace(read, judgements=thresholded.judgements)
    rated = sum(case.gold is not None for case in cases)
    if not rated:
        raise DataError(
            f"no case has an expert label: {read.gold_place} holds none for {len(cases):,} cases, expected at least "
            "one. Name the column or the file with --gold."
        )
    baselines, leakage, n_train = _baselines(cases, contract, options)
    own = {name: read.judgements.pop(name) for name in list(read.judgements) if name in read.baselines}
    baselines = without_names_of(baselines, read.judgements)
    results = summarise(
        cases,
        read.judgements,
        contract=contract,
        split=read.split,
        baselines=Baselines(
            {**baselines.judgements, **own},
            {name: why for name, why in baselines.skipped.items() if name not in own},
        ),
        training=TrainingRows(n_train, {**leakage.to_json(), "statement": leakage.summary_line}),
        options=AnalysisOptions(
            reference=options.reference,
            families=options.families,
            slices=slice_names(cases),
            level=options.level,
            n_resamples=options.n_resamples,
            seed=options.seed,
        ),
        scored=scored,
    )
    groups = {case.case_id: case.group for case in cases}
    repeats = {
        name: repeat_consistency(
            {case_id: given for case_id, given in labels.items() if case_id in groups}, groups, level=options.level
        )
        for name, labels in read.repeats.items()
    }
    about_repeats = [_repeats_sentence(name, result) for name, result in repeats.items()]
    said = (*results.statements, *statements, *about_repeats, *read.statements, *baselines.notes)
    results = results.model_copy(update={"statements": said, "read_as": read.read_as, "repeats": repeats})
    return Scored(results, cases, {**read.judgements, **baselines.judgements, **own}, read.completions)


def _number_options(options: ScoreOptions) -> NumberOptions | None:
    """What becomes of numbers; None where verdicts are labels. Raises ConfigError for a rule without numbers."""
    if options.scores is not None:
        return NumberOptions(options.scores, options.threshold, options.threshold_rule, options.calibration_share)
    if options.threshold_rule is not None:
        raise ConfigError(
            "--threshold-rule chooses a threshold for scores: say what they are, expected --scores probability, "
            "percent, logit or number."
        )
    return None


def gold_rule(contract: TaskContract | LabelScale, options: ScoreOptions, facts: Mapping[str, Facts]) -> GoldRule:
    """How several experts' ratings become a label. Raises ConfigError for a rule that these files or labels lack."""
    adjudicated = any(known.adjudicated is not None for known in facts.values())
    if options.gold_rule == "adjudicated" and not adjudicated:
        raise ConfigError(
            "--gold-rule adjudicated: no case has an adjudicated label, expected a column of them. Name it with "
            "--gold-map adjudicated=COLUMN (--map where the verdict files hold it), or take another rule."
        )
    rule = options.gold_rule or ("adjudicated" if adjudicated else "majority")
    return GoldRule(contract.labels, rule, options.gold_ties, contract.ordered)


@dataclass(frozen=True, slots=True)
class _Read:
    """All files, joined."""

    facts: dict[str, Facts]
    judgements: dict[str, list[Judgement]]
    baselines: frozenset[str]
    completions: dict[tuple[str, str], str]
    gold_place: str
    """Where expert labels were looked for, in words."""
    split: str
    read_as: tuple[str, ...]
    statements: tuple[str, ...]
    repeats: dict[str, Mapping[str, Sequence[str | None]]]
    """Judge -> case -> its labels, where it has several verdicts on one case."""


def _read(sources: Sequence[str | Rows], contract: TaskContract | LabelScale, options: ScoreOptions) -> _Read:
    """Raises DataError and ConfigError as `score`."""
    if not sources:
        raise ConfigError("got no file of verdicts, expected one or more. Name them before the options.")
    inputs, group_fields = _task_fields(contract)
    numbers, n_labels = _number_options(options), len(contract.labels)
    if numbers is not None:
        numbers.check(n_labels, contract.positive)
    threshold = options.threshold if numbers is None or n_labels > 2 else numbers.read_at
    scale = Scale(contract.labels, options.aliases, threshold, contract.positive, numbers is not None)
    nearest = numbers is not None and n_labels > 2  # experts' means between two labels are read as verdicts are
    gold_scale = Scale(contract.labels, options.aliases, options.gold_threshold, contract.positive, nearest)
    gold_source, columns = _gold_source(options)
    where = parse_where(options.where)
    check_name(options.format)
    asked = Asked(
        contract.labels,
        options.threshold is not None,
        columns.get("gold"),
        gold_source is not None,
        contract if isinstance(contract, TaskContract) else None,
    )
    gold_table = None
    if gold_source is not None:
        # The experts' file is recognised by itself: that of the verdicts is often another program's.
        of_gold = Asked(contract.labels, options.gold_threshold is not None)
        gold_table = load_table(gold_source, where, of_gold, AUTO, ("gold", options.gold_columns.get("gold", "")))
    named = [_named(source) for source in sources]
    tables: dict[str, Table] = {}
    for _, source in named:
        name = source if isinstance(source, str) else source.name
        if name in tables:
            raise ConfigError(
                f"{name} is named twice: expected each file once. For several columns of one file name each of them: "
                "--judge NAME=COLUMN."
            )
        # Several columns of verdicts are named by hand: the file is plain rows.
        form = PLAIN if options.judges and options.format == AUTO else options.format
        tables[name] = load_table(source, where, asked, form, ("label", columns.get("label", "")))
    check_where([*tables.values(), *([gold_table] if gold_table else [])], where)
    expert = None
    if gold_table is not None:
        # Experts' labels of pairs are written as the program writes its verdicts, whoever made their file.
        meant = {table.meaning for table in tables.values()}
        gold_table.meaning = gold_table.meaning or (meant.pop() if len(meant) == 1 else "")
        expert = read_gold(
            gold_table,
            gold_scale,
            columns=options.gold_columns,
            inputs=inputs,
            group_fields=group_fields,
            ids=[table.columns["id"] for table in tables.values() if "id" in table.columns],
        )
    reading = Reading(
        columns,
        options.judges,
        inputs,
        group_fields,
        options.confidence_max,
        ids_needed=gold_table is not None or len(tables) > 1,
        min_read=options.min_read,
    )
    files = {
        path: read_verdicts(table, scale, reading, judge=name, is_named=source != given, gold=gold_scale)
        for given, (name, source), (path, table) in zip(sources, named, tables.items(), strict=True)
    }
    if expert is None and not any("gold" in file.columns for file in files.values()):
        first = next(iter(tables.values()))
        error = no_column(first, "gold", files[first.source].columns, scale)
        raise DataError(f"{error} Or name a file of expert labels with --gold.")
    return _joined(files, expert, gold_table.source if gold_table else None)


def _gold_source(options: ScoreOptions) -> tuple[str | Rows | None, dict[str, str]]:
    """The file of expert labels, or None; and the columns of the verdict files, with that of `gold` where it is one."""
    columns, gold = dict(options.columns), options.gold
    if gold is None:
        return None, columns
    if isinstance(gold, Rows) or Path(gold).expanduser().exists() or Path(gold).suffix in FILE_ENDINGS:
        return gold, columns
    if columns.setdefault("gold", gold) != gold:
        raise ConfigError(
            f"--gold names column {gold!r} and --map gold={columns['gold']}: expected one column. Give one of the two."
        )
    return None, columns


def _joined(files: Mapping[str, VerdictFile], expert: GoldFile | None, gold_name: str | None) -> _Read:
    """Rows of one case put together. Raises DataError where they contradict each other or have nothing in common."""
    files, respelt = one_writing(files, expert)
    facts: dict[str, Facts] = dict(expert.facts) if expert is not None else {}
    in_gold = set(facts)
    grouped = any(known.group for known in facts.values())
    dropped = frozenset().union(*(file.dropped for file in files.values()))
    for path, file in files.items():
        for case_id, now in file.facts.items():
            if expert is not None and case_id not in in_gold:
                continue
            before = facts.get(case_id)
            if file.groups_guessed and (grouped or (before is not None and before.group)):
                now = replace(now, group="")
            facts[case_id] = merged(case_id, before, now, path)
    judgements = _by_judge(files)
    judged_ids = {judgement.case_id for answers in judgements.values() for judgement in answers}
    if expert is not None:
        _check_partners(judgements, in_gold, expert.dropped, gold_name or "")
    # Who keeps a part of the verdicts measures that part: its other cases are not unanswered ones.
    left_out = (dropped - judged_ids) & in_gold
    for case_id in left_out:
        del facts[case_id]
    out_of_gold = expert.dropped if expert is not None else frozenset()
    return _Read(
        facts,
        judgements,
        frozenset(name for file in files.values() for name in _baselines_of(file)),
        {key: text for file in files.values() for key, text in file.completions.items()},
        gold_name or f"column {next(iter(files.values())).columns.get('gold', 'gold')!r}",
        Path(gold_name).name if gold_name else _listed_files(files),
        (*(line for file in files.values() for line in file.read_as), *(expert.read_as if expert else ()), *respelt),
        (
            *_without_partner(judgements, in_gold, out_of_gold),
            *([f"Left out by --where: {counted(len(left_out), 'case')} of the expert file."] if left_out else []),
        ),
        {name: labels for file in files.values() for name, labels in file.repeats.items()},
    )


def _listed_files(paths: Collection[str]) -> str:
    names = [Path(path).name for path in paths]
    return ", ".join(names) if len(names) <= N_SHOWN else f"{len(names)} files"


def _check_partners(
    judgements: Mapping[str, Sequence[Judgement]], in_gold: set[str], out_of_gold: frozenset[str], gold_name: str
) -> None:
    """Raises DataError for a judge of whose verdicts hardly any is on a case with experts, nor the other way round."""
    for name, answers in judgements.items():
        ids = {one.case_id for one in answers} - out_of_gold
        shared = ids & in_gold
        if not ids or (shared and len(shared) >= MIN_PARTNERS * min(len(ids), len(in_gold))):
            continue
        few = f"only {len(shared):,} of {len(ids):,} verdicts of {name} have" if shared else f"no verdict of {name} has"
        raise DataError(
            f"{few} a partner in {gold_name}: ids there are like {_shown(in_gold - shared)}, in the verdicts like "
            f"{_shown(ids - shared)}. Map the column that both share: --map id=COLUMN, --gold-map id=COLUMN."
        )


def _named(source: str | Rows) -> tuple[str, str | Rows]:
    """(judge, source) of `NAME=PATH`, `PATH` or rows in memory."""
    if isinstance(source, Rows):
        return source.name, source
    name, equals, path = source.partition("=")
    if equals and name and path and not Path(source).exists():
        return name, path
    return judge_name(source), source


def _task_fields(contract: TaskContract | LabelScale) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The fields of a task that are texts, and those of them that make a question; none of a scale alone."""
    if not isinstance(contract, TaskContract):
        return (), ()
    other = (contract.gold_field, contract.reason_field)
    return tuple(name for name in contract.fields if name not in other), tuple(contract.group_fields)


def _by_judge(files: Mapping[str, VerdictFile]) -> dict[str, list[Judgement]]:
    judgements: dict[str, list[Judgement]] = {}
    for path, file in files.items():
        for name, answers in file.judgements.items():
            if name in judgements:
                raise DataError(
                    f"{path}: a judge {name!r} stands in an earlier file too, expected one name for each. Give each "
                    "file's judge a name: NAME=PATH."
                )
            judgements[name] = answers
    return judgements


def _baselines_of(file: VerdictFile) -> Collection[str]:
    """The judges of a file that are baselines: as it says itself, or by name where this program wrote none of that."""
    if file.own_without_role:
        return [name for name in file.judgements if name in BASELINES or name in EARLIER]
    return file.baselines


def _baselines(
    cases: Sequence[Case], contract: TaskContract | LabelScale, options: ScoreOptions
) -> tuple[Baselines, LeakageReport, int | None]:
    """Baselines and leakage, as far as training rows allow."""
    leakage = LeakageReport((), {}, DataConfig().leakage.near_duplicate_threshold)
    train: Sequence[Case] = ()
    if options.train is not None:
        if not isinstance(contract, TaskContract):
            raise ConfigError(
                "got --train with --labels, expected --task: --train holds rows of a task. Name it with --task."
            )
        config = DataConfig(fields=_train_fields(contract, options.gold_columns))
        train = read_source(options.train, contract, config, where=parse_where(options.train_where)).cases
        if any(case.inputs for case in cases):
            leakage = check_leakage({"train": train}, {"evaluated": [case for case in cases if case.inputs]})
    baselines = every_baseline(
        train,
        cases,
        kind=contract.kind,
        labels=contract.labels,
        positive=contract.positive,
        question_fields=contract.group_fields if isinstance(contract, TaskContract) else (),
        rng=np.random.default_rng(options.seed),
        embed=lambda: embed_or_why_not(EmbeddingSettings()),
    )
    return baselines, leakage, len(train) or None


def _train_fields(contract: TaskContract, gold_columns: Mapping[str, str]) -> dict[str, str]:
    """The mapping of the expert file, in the words of the task."""
    renamed = {contract.gold_field if name == "gold" else name: column for name, column in gold_columns.items()}
    return {name: column for name, column in renamed.items() if name in contract.fields}


def _without_partner(
    judgements: Mapping[str, Sequence[Judgement]], in_gold: set[str], out_of_gold: frozenset[str]
) -> list[str]:
    """What found no partner, in words. out_of_gold: cases that --where leaves out of the expert file."""
    sentences = []
    for name, answers in judgements.items():
        alone = [one.case_id for one in answers if in_gold and one.case_id not in in_gold | out_of_gold]
        if alone:
            sentences.append(
                f"{counted(len(alone), 'verdict')} of {name} found no case in the file of expert labels (such as "
                f"{_shown(alone)}): left out of its agreement."
            )
    return sentences


def _repeats_sentence(name: str, result: RepeatResult) -> str:
    sentence = repeat_sentence(name, result)
    more = f" and {len(result.tied) - N_SHOWN:,} more" if len(result.tied) > N_SHOWN else ""
    return f"{sentence} ({_shown(result.tied)}{more})." if result.tied else sentence


def _shown(ids: Sequence[str] | set[str]) -> str:
    return ", ".join(shown_id(case_id) for case_id in sorted(ids)[:N_SHOWN])


def _rows(scored: Scored) -> list[VerdictRow]:
    cases = {case.case_id: case for case in scored.cases}
    rows = []
    for name, answers in scored.judgements.items():
        for judgement in answers:
            case = cases.get(judgement.case_id) or Case(judgement.case_id, {})
            row = VerdictRow.of(name, case, judgement, role=scored.results.models[name].role)
            rows.append(replace(row, completion=scored.completions.get((name, judgement.case_id))))
    return rows


def parse_judges(pairs: Sequence[str]) -> dict[str, str]:
    """`["gpt=gpt-x", "b"]` -> {"gpt": "gpt-x", "b": "b"}, as `--judge` takes it. Raises ConfigError."""
    judges: dict[str, str] = {}
    for pair in pairs:
        name, equals, column = (part.strip() for part in pair.partition("="))
        column = column if equals else name
        if not name or not column or name in judges:
            raise ConfigError(
                f"--judge takes NAME=COLUMN or COLUMN, each name once; got {pair!r}. Write it in that form, and rename "
                "a second one."
            )
        judges[name] = column
    return judges


def label_scale(labels: str | Sequence[str], ordered: bool = False, positive: str | None = None) -> LabelScale:
    """The scale of `--labels a,b,c`. Of two labels the second is positive unless `positive` names the first."""
    names = tuple(str(part).strip() for part in (labels.split(",") if isinstance(labels, str) else labels))
    if positive is None and len(names) == 2 and not ordered:
        positive = names[1]
    try:
        return LabelScale(labels=names, ordered=ordered, positive=positive)
    except ValidationError as error:
        raise ConfigError(
            f"--labels: {error.errors()[0]['msg'].removeprefix('Value error, ')}. Name the labels of one scale, such "
            "as --labels no,yes."
        ) from None
