"""Supervised fine-tuning through TRL's SFTTrainer, on rows that the contract rendered and tokenised."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from datasets import Dataset
from transformers import PrinterCallback

from medjudge import artifacts
from medjudge.data.ratings import RatedView
from medjudge.data.splits import seeded_sample
from medjudge.errors import DataError
from medjudge.models.adapters import lora_config
from medjudge.models.load import check_context
from medjudge.records import Case
from medjudge.settings.training import SftConfig
from medjudge.tasks.contract import TaskContract
from medjudge.tasks.encoding import Encoded, encode_all
from medjudge.training.job import Trained, TrainingJob
from medjudge.training.order import length_grouped_order, n_epochs, n_steps
from medjudge.training.packed_sft import PackedSftTrainer
from medjudge.training.progress_callback import Watch, clean_history
from medjudge.training.totals import Totals
from medjudge.training.trl_adapter import head_on_labels_only
from medjudge.training.trl_arguments import sft_arguments

EVAL_CASES = 256
"""Validation cases whose loss is watched, drawn by the seed."""


@dataclass(frozen=True, slots=True)
class TaughtRows:
    """The rated cases that SFT learns from, each encoded once with its target, and those whose loss is watched."""

    train: tuple[tuple[Case, Encoded], ...]
    validation: tuple[Encoded, ...] = ()
    turns: tuple[tuple[int, ...], ...] = ()
    """Per case the rows, places of `train`, that take turns as its target; empty where every row is one of its own."""

    @classmethod
    def of_ratings(
        cls,
        views: Sequence[RatedView],
        taught: Sequence[tuple[Case, Encoded]],
        mode: Literal["each", "drawn"],
        validation: tuple[Encoded, ...] = (),
    ) -> TaughtRows:
        """Rows of several experts' ratings. taught: the views' cases as they are taught, encoded, in their order.

        `each`: a view is as many rows as experts gave its label. `drawn`: these rows take turns, case by case.
        """
        rows: list[tuple[Case, Encoded]] = []
        by_case: dict[str, list[int]] = {}
        for view, row in zip(views, taught, strict=True):
            by_case.setdefault(view.case_id, []).extend(range(len(rows), len(rows) + view.n))
            rows += [row] * view.n
        return cls(tuple(rows), validation, tuple(map(tuple, by_case.values())) if mode == "drawn" else ())

    @classmethod
    def encode(
        cls, contract: TaskContract, train: Sequence[Case], validation: Sequence[Case], tokenizer: Any, *, seed: int
    ) -> TaughtRows:
        """Rows of splits; cases without a gold label are left out, and of the validation split a sample is taken."""
        rated = [case for case in train if case.gold is not None]
        encoded = encode_all(contract, rated, tokenizer, with_target=True)
        return cls(
            tuple(zip(rated, encoded, strict=True)), cls.encode_validation(contract, validation, tokenizer, seed=seed)
        )

    @staticmethod
    def encode_validation(
        contract: TaskContract, validation: Sequence[Case], tokenizer: Any, *, seed: int
    ) -> tuple[Encoded, ...]:
        """The sample whose loss is watched: `EVAL_CASES` at most, those without a gold label left out."""
        watched = [case for case in seeded_sample(validation, EVAL_CASES, seed) if case.gold is not None]
        return tuple(encode_all(contract, watched, tokenizer, with_target=True))


def tokenised_rows(encoded_rows: Iterable[Encoded]) -> list[dict[str, list[int]]]:
    """`input_ids` and `labels` (-100 on the prompt) of each row, all of which have a target."""
    rows = []
    for encoded in encoded_rows:
        completion_ids = encoded.completion_ids or []
        # -100 is the label that torch's cross-entropy leaves out: the judge learns answers, not prompts.
        labels = [-100] * len(encoded.prompt_ids) + completion_ids
        rows.append({"input_ids": [*encoded.prompt_ids, *completion_ids], "labels": labels})
    return rows


def oversampled(cases: Sequence[Case], seed: int) -> list[Case]:
    """The cases with gold, those of rarer labels repeated (whole rounds, then a seeded draw) to equal counts."""
    # A stream of its own (2), so that this draw does not move with draws elsewhere that use the same seed.
    rng = np.random.default_rng([seed, 2])
    by_label: dict[str, list[Case]] = {}
    for case in cases:
        if case.gold is not None:
            by_label.setdefault(case.gold, []).append(case)
    most = max((len(group) for group in by_label.values()), default=0)
    chosen: list[Case] = []
    for group in by_label.values():
        rounds, rest = divmod(most, len(group))
        # Sorted: repeated cases keep the order of the rows, whatever order the draw gave them in.
        chosen += group * rounds + [group[i] for i in sorted(rng.choice(len(group), rest, replace=False))]
    return chosen


def in_turn(order: Sequence[int], turns: Sequence[Sequence[int]], seed: int) -> list[int]:
    """The row of each visit to a case: its rows one after the other, from one that the seed draws.

    order: cases as training visits them; turns: per case its rows. Over as many visits as a case has rows each is
    taught once, and over all cases each is as likely first: an unbiased estimate of the mean loss over a case's rows.
    """
    # A stream of its own (3), as in `oversampled`.
    rng = np.random.default_rng([seed, 3])
    following = [int(rng.integers(len(own))) for own in turns]
    rows = []
    for case in order:
        rows.append(turns[case][following[case] % len(turns[case])])
        following[case] += 1
    return rows


def train_sft(job: TrainingJob, config: SftConfig, taught: TaughtRows) -> Trained:
    """Trains on the experts' answers. Resumes from the last whole checkpoint of the job.

    Raises DataError where there is no row to learn from.
    """
    seed, model, work = job.seed, job.model, job.work
    if config.class_balance == "oversample":
        # A repeated case is encoded once: rendering and tokenising take longer than the draw.
        by_id = {case.case_id: encoded for case, encoded in taught.train}
        rows = tokenised_rows(by_id[case.case_id] for case in oversampled([case for case, _ in taught.train], seed))
    else:
        rows = tokenised_rows(encoded for _, encoded in taught.train)
    if not rows:
        raise DataError(
            f"split {config.split!r} has no case with a gold label, expected at least one: SFT has nothing to learn "
            "from. Map the column that holds it in `[data.fields]`, or name another split."
        )
    # Before training: too long a row would fail, or be cut off unseen, in the middle of an epoch.
    check_context(model, max(len(row["input_ids"]) for row in rows))
    turns = taught.turns or tuple((place,) for place in range(len(rows)))
    epochs = n_epochs(len(turns), config.epochs, config.completions_per_step, config.max_steps)
    lengths = [max(len(rows[place]["input_ids"]) for place in own) for own in turns]
    order = in_turn(length_grouped_order(lengths, epochs, config.micro_batch, seed), turns, seed)
    steps = n_steps(len(turns), config.epochs, config.completions_per_step, config.max_steps)
    held_out = tokenised_rows(taught.validation)
    # Once per epoch, and never more than ten times: each look costs a pass over the validation sample.
    eval_steps = max(1, steps // max(1, min(10, round(epochs)))) if held_out else None
    checkpoint = artifacts.latest_checkpoint(work)
    watch, totals = Watch("sft", ("loss", "eval_loss")), Totals(checkpoint)
    trainer = PackedSftTrainer(
        model=model,
        args=sft_arguments(config, job.model_config, work, steps=steps, eval_steps=eval_steps, seed=seed),
        # The order is written out row by row, and the sampler is sequential: a resumed run goes on at the same row.
        train_dataset=Dataset.from_list([rows[i] for i in order]),
        eval_dataset=Dataset.from_list(held_out) if held_out else None,
        processing_class=job.tokenizer,
        peft_config=lora_config(config.lora) if config.tuning == "lora" else None,
        callbacks=[totals, watch],
    )
    trainer.use_packed(job.model_config)
    totals.trainer = trainer
    # It prints whole log entries; the watch shows the few numbers that matter.
    trainer.remove_callback(PrinterCallback)
    try:
        with head_on_labels_only():
            trainer.train(resume_from_checkpoint=checkpoint)
    finally:
        # In any case: a bar that is left open would overwrite the error's lines.
        watch.close()
    return Trained(trainer.model, clean_history(trainer.state.log_history))
