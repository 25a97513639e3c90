"""SFT tokens per second, TRL as it comes against medjudge, on the same rows of mixed length.

    python benchmarks/sft_tokens.py [--rounds 5] [--vocab 8192] [--tuning full|lora]

Rows: the built-in sets of all four tasks, so that short and long prompts meet in one training. Every arm trains one
epoch from the same weights with the same optimiser and batch size. By default TRL checkpoints gradients, which trades
time for memory; the arm without it is the fair one. "TRL, rows in our order" trains on the very batches of
medjudge and so must show the same losses; it also tells how much of the gain is the order.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from datasets import Dataset
from transformers import PrinterCallback, set_seed
from trl import SFTConfig, SFTTrainer

from medjudge.data.sources import read_source
from medjudge.models.adapters import lora_config
from medjudge.models.load import quiet_libraries
from medjudge.models.scratch import build_tokenizer
from medjudge.settings.data import DataConfig
from medjudge.settings.model import LoraSettings
from medjudge.settings.training import BaseConfig
from medjudge.tasks.appropriateness import AppropriatenessContract
from medjudge.tasks.equivalence import EquivalenceContract
from medjudge.tasks.mcq import McqContract
from medjudge.tasks.rubric import RubricContract
from medjudge.training.language_model import build_model
from medjudge.training.order import length_grouped_order
from medjudge.training.sft import tokenised_rows
from medjudge.training.trl_adapter import head_on_labels_only
from side_by_side import arguments, in_turn, ratio, report

SETS = {
    "builtin:mcq": McqContract(instructions="terse"),
    "builtin:equivalence": EquivalenceContract(instructions="terse"),
    "builtin:rubric": RubricContract(instructions="terse"),
    "builtin:appropriateness": AppropriatenessContract(form="answer_only", instructions="terse"),
}


def main() -> None:
    """Builds rows and model, runs the arms in turn, reports."""
    parser = arguments(__doc__)
    parser.add_argument("--rows", type=int, default=32, help="rows of each set")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--vocab", type=int, default=8192)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--tuning", choices=("full", "lora"), default="full")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    quiet_libraries()
    cases = {
        name: read_source(name, contract, DataConfig(max_rows=options.rows)).cases for name, contract in SETS.items()
    }
    texts = [turn["content"] for name, contract in SETS.items() for c in cases[name] for turn in contract.messages(c)]
    tokenizer = build_tokenizer(texts, options.vocab)
    rows = [row for name, contract in SETS.items() for row in tokenised_rows(contract, cases[name], tokenizer)]
    lengths = [len(row["input_ids"]) for row in rows]
    shape = BaseConfig(
        vocab_size=options.vocab,
        hidden_size=options.hidden,
        n_layers=options.layers,
        n_heads=4,
        intermediate_size=3 * options.hidden,
    )
    ordered = length_grouped_order(lengths, 1, options.batch, seed=0)

    def trainer(order: list[int] | None, checkpointing: bool) -> Any:
        """A trainer on fresh weights; `order` None leaves the order to TRL."""
        model = build_model(shape, tokenizer, seed=0)
        if model.config.vocab_size < options.vocab:  # the rows hold too few words to fill it; the head's size counts
            model.resize_token_embeddings(options.vocab, mean_resizing=False)
        set_seed(0)
        with tempfile.TemporaryDirectory() as folder:
            made = SFTTrainer(
                model=model,
                args=SFTConfig(
                    output_dir=folder,
                    per_device_train_batch_size=options.batch,
                    num_train_epochs=1,
                    learning_rate=1e-3,
                    train_sampling_strategy="random" if order is None else "sequential",
                    gradient_checkpointing=checkpointing,
                    max_length=None,
                    use_cpu=True,
                    bf16=False,
                    report_to="none",
                    save_strategy="no",
                    logging_steps=1,
                    disable_tqdm=True,
                ),
                train_dataset=Dataset.from_list(rows if order is None else [rows[i] for i in order]),
                processing_class=tokenizer,
                peft_config=lora_config(LoraSettings()) if options.tuning == "lora" else None,
            )
        made.remove_callback(PrinterCallback)
        return made

    def arm(order: list[int] | None, *, checkpointing: bool, ours: bool) -> Callable[[], list[float]]:
        waiting = [trainer(order, checkpointing) for _ in range(options.rounds)]

        def run() -> list[float]:
            made = waiting.pop()
            with head_on_labels_only() if ours else nullcontext():
                made.train()
            return [entry["loss"] for entry in made.state.log_history if "loss" in entry]

        return run

    arms = {
        "TRL, defaults": arm(None, checkpointing=True, ours=False),
        "TRL, no checkpointing": arm(None, checkpointing=False, ours=False),
        "TRL, rows in our order": arm(ordered, checkpointing=False, ours=False),
        "medjudge": arm(ordered, checkpointing=False, ours=True),
    }
    taken = in_turn(arms, options.rounds)
    n_parameters = sum(p.numel() for p in trainer(None, False).model.parameters())
    same, own = taken["TRL, rows in our order"].values[0], taken["medjudge"].values[0]
    report(
        "sft_tokens",
        f"SFT, {options.tuning}, {n_parameters / 1e6:.1f} M parameters",
        taken,
        "TRL, no checkpointing",
        per_round=sum(lengths),
        unit="tokens",
        out=options.out,
        facts={
            "rows": f"{len(rows)} of {min(lengths)} to {max(lengths)} tokens, {sum(lengths):,} in all",
            "vocabulary": options.vocab,
            "faster than TRL's defaults": f"{ratio(taken['TRL, defaults'], taken['medjudge']):.2f} x",
            "largest difference of a step's loss on the same batches": max(
                abs(a - b) for a, b in zip(same, own, strict=True)
            ),
        },
    )


if __name__ == "__main__":
    main()
