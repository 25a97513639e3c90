"""Section `[data]`: where rows come from, how they are checked and split."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, model_validator

from medjudge.settings.base import Settings, split_name

GoldRuleName = Literal["majority", "adjudicated", "mean", "median"]
GoldTies = Literal["leave_out", "higher", "lower"]
SPLIT_SOURCES = ("train", "grpo", "validation", "test")
"""Splits that may have a source of their own."""


class LeakageConfig(Settings):
    """What counts as a leak between two splits, and how much of it a run allows."""

    near_duplicate_threshold: float = Field(0.9, gt=0, le=1)
    """Jaccard similarity of word 5-shingles that each input field of two cases must reach to be near-duplicates.

    A changed word breaks five shingles: at 0.9, fields under about 100 words must agree almost word by word."""
    likeness_threshold: float = Field(0.85, gt=0, le=1)
    """Cosine of character 3-grams that the whole texts of two cases must reach to count as near-duplicates: it finds a
    typing error, a word more or less, missing accents. At 1 only accents and the order of options may differ."""
    max_share: float = Field(0.0, ge=0, le=1)
    """Share of the held-out cases that may leak before the run stops."""
    allow: tuple[Literal["exact", "normalised", "near_duplicate", "group", "conflict"], ...] = ()
    """Kinds of leak that are reported but do not stop the run."""


class DataConfig(Settings):
    """Where rows come from, how columns map onto the contract's fields, and how they are split."""

    source: str | None = None
    """One source that is split: a path, `hub:owner/name[:split]` or `builtin:NAME`."""
    train: str | None = None
    grpo: str | None = None
    validation: str | None = None
    test: str | None = None
    fields: Mapping[str, str] = Field(default_factory=dict)
    """Contract field -> column, where the names differ: `{condition = "topic"}`. A text with columns in braces makes a
    field of several, `{question = "{stem} ({site})"}`; a row in which one of them is empty does not have it."""
    values: Mapping[str, Mapping[str, str]] = Field(default_factory=dict)
    """Contract field -> {value in the file -> value meant}: `{label = {PASS = "1", FAIL = "0"}}`."""
    where: Mapping[str, str | int | float | bool | None] = Field(default_factory=dict)
    """Keep only rows whose column equals this value: `{exp_agrees = true}`. Rows left out are counted."""
    where_by_split: Mapping[str, Mapping[str, str | int | float | bool | None]] = Field(default_factory=dict)
    """As `where`, for one split's source, where a file holds several: `{train = {split = "train"}}`."""
    case_id: str | None = None
    """The column that holds a unique id; without it the id is a hash of the inputs."""
    group_by: tuple[str, ...] = ()
    """Columns (or contract fields) whose equal values keep cases on one side; default: the contract's group fields."""
    slices: tuple[str, ...] = ()
    """Columns to keep for slicing results, such as `generator`."""
    raters: tuple[str, ...] = ()
    """Columns of several experts' labels, one column each. A list in the gold column needs no setting."""
    rater: str | None = None
    """Or the column that names who gave the row's label: rows with the same inputs are then one case."""
    adjudicated: str | None = None
    """The column of the label that was settled on where experts differed."""
    gold_rule: GoldRuleName | None = None
    """How a case's label is made of its ratings; default: `adjudicated` where that column is named, else `majority`.
    `mean` and `median` are of positions on an ordered scale."""
    gold_ties: GoldTies = "leave_out"
    """What a tie becomes: no label (counted), or the higher or lower of the labels that tie."""
    splits: Mapping[str, float | int | tuple[int, int]] = Field(
        default_factory=lambda: {"train": 0.7, "validation": 0.1, "test": 0.2}
    )
    """For one `source`: split name -> share (0.2), number of cases (400), or index range `[0, 1000)` after a shuffle.

    Index ranges are the published form: shuffle all rows with `seed`, then cut. They ignore groups."""
    stratify_by: str | None = None
    """A column, or `label`, whose shares each split keeps (as far as whole groups allow)."""
    seed: int = 42
    max_rows: int | None = Field(None, ge=1)
    """Use at most this many rows of each source, of those that `where` keeps."""
    bad_rows: Literal["refuse", "set_aside"] = "refuse"
    """`set_aside` writes bad rows' places and reasons into `rejected.jsonl` and goes on."""
    duplicates: Literal["keep", "drop", "refuse"] = "drop"
    """What to do with rows that repeat another row's inputs and label."""
    leakage: LeakageConfig = LeakageConfig()

    @model_validator(mode="after")
    def _one_form(self) -> DataConfig:
        # Both forms at once could put one row on two sides.
        by_split = [name for name in SPLIT_SOURCES if getattr(self, name)]
        if self.source and by_split:
            raise ValueError(f"got `source` and {by_split}: give one `source` to be split, or a source per split")
        if self.raters and self.rater:
            raise ValueError("got `raters` and `rater`: name one column per expert, or the column that names them")
        if self.gold_rule == "adjudicated" and self.adjudicated is None:
            raise ValueError("`gold_rule` is adjudicated: name the column of that label in `adjudicated`")
        names = [split_name(name) for name in self.splits]
        if len({name.lower() for name in names}) < len(names):
            raise ValueError(
                "`splits` names two splits that differ in capitals only, which is one file on some systems: rename one"
            )
        kinds = {type(size) for size in self.splits.values()}
        if tuple in kinds and len(kinds) > 1:
            raise ValueError("`splits` mixes index ranges with shares or counts: use one form")
        shares = [size for size in self.splits.values() if isinstance(size, float)]
        # 0.7 + 0.1 + 0.2 is a little more than 1 in floating point.
        if sum(shares) > 1 + 1e-9:
            raise ValueError(f"`splits` shares add up to {sum(shares):g}, expected at most 1: lower them")
        for name, size in self.splits.items():
            if isinstance(size, tuple):
                if not 0 <= size[0] < size[1]:
                    raise ValueError(
                        f"`splits.{name}` is {list(size)}: expected [first, past_last], "
                        "first < past_last, such as [0, 1000]"
                    )
            elif size <= 0:
                raise ValueError(f"`splits.{name}` is {size}: expected a share in (0, 1] or a positive number of cases")
            elif isinstance(size, float) and size > 1:
                raise ValueError(f"`splits.{name}` is {size}: a share is at most 1.0; write an integer for a count")
        unknown = sorted(set(self.where_by_split) - set(by_split))
        if unknown:
            raise ValueError(
                f"`where_by_split` names {', '.join(unknown)}, which have no source of their own "
                "here: use `where`, or give each split its source"
            )
        return self
