"""SFT tokens per second, TRL as it comes against medjudge, on the same rows of mixed length.

    python benchmarks/sft_tokens.py [--rounds 5] [--vocab 8192] [--tuning full|lora]
    python benchmarks/sft_tokens.py --model FOLDER --rows 8 --rounds 3 --short     # a model of one's own, two arms

Rows: the built-in sets of all four tasks, so that short and long prompts meet in one training. Every arm trains one
epoch from the same weights with the same optimiser and batch size. By default TRL computes in bfloat16 and checkpoints
gradients, which trades time for memory; the arm without the latter is the fair one. "TRL, rows in our order" trains on
the very batches of medjudge and so must show the same losses up to rounding; it also tells how much of the gain is the
order. "(products alone)" multiplies matrices of the model's shapes, as many as medjudge's step holds: what is left of
its time is not products.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, PrinterCallback, set_seed
from trl import SFTConfig

from medjudge.data.sources import read_source
from medjudge.machine import prepare_process
from medjudge.models.adapters import lora_config
from medjudge.models.load import load_tokenizer, quiet_libraries
from medjudge.models.packed import pack
from medjudge.models.scratch import build_tokenizer
from medjudge.settings.data import DataConfig
from medjudge.settings.model import LoraSettings, ModelConfig
from medjudge.settings.training import BaseConfig
from medjudge.tasks.appropriateness import AppropriatenessContract
from medjudge.tasks.encoding import encode_all
from medjudge.tasks.equivalence import EquivalenceContract
from medjudge.tasks.mcq import McqContract
from medjudge.tasks.rubric import RubricContract
from medjudge.training.language_model import build_model
from medjudge.training.order import length_grouped_order
from medjudge.training.packed_sft import PackedSftTrainer
from medjudge.training.sft import tokenised_rows
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
    parser.add_argument("--model", type=Path, help="a model folder, in place of one built here")
    parser.add_argument("--short", action="store_true", help="TRL's defaults and medjudge alone")
    parser.add_argument("--max-tokens", type=int, default=10_000, help="leave longer rows out")
    options = parser.parse_args()
    prepare_process()
    torch.set_num_threads(options.threads)
    quiet_libraries()
    cases = {
        name: read_source(name, contract, DataConfig(max_rows=options.rows)).cases for name, contract in SETS.items()
    }
    texts = [turn["content"] for name, contract in SETS.items() for c in cases[name] for turn in contract.messages(c)]
    tokenizer = load_tokenizer(options.model) if options.model else build_tokenizer(texts, options.vocab)
    rows = []
    for name, contract in SETS.items():
        rows += tokenised_rows(encode_all(contract, cases[name], tokenizer, with_target=True))
    rows = [row for row in rows if len(row["input_ids"]) <= options.max_tokens]
    lengths = [len(row["input_ids"]) for row in rows]
    shape = BaseConfig(
        vocab_size=options.vocab,
        hidden_size=options.hidden,
        n_layers=options.layers,
        n_heads=4,
        intermediate_size=3 * options.hidden,
    )
    ordered = length_grouped_order(lengths, 1, options.batch, seed=0)

    def fresh() -> Any:
        if options.model:
            return AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32)
        model = build_model(shape, tokenizer, seed=0)
        if model.config.vocab_size < options.vocab:  # the rows hold too few words to fill it; the head's size counts
            model.resize_token_embeddings(options.vocab, mean_resizing=False)
        return model

    def trainer(order: list[int] | None, checkpointing: bool) -> Any:
        """A trainer on fresh weights; `order` None leaves the order to TRL."""
        model = fresh()
        set_seed(0)
        with tempfile.TemporaryDirectory() as folder:
            made = PackedSftTrainer(
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

    class Arm:
        """One way of training; a fresh trainer each round, made off the clock."""

        def __init__(self, order: list[int] | None, *, checkpointing: bool, ours: bool) -> None:
            self.order, self.checkpointing, self.ours = order, checkpointing, ours

        def prepare(self) -> None:
            self.trainer = trainer(self.order, self.checkpointing)

        def __call__(self) -> list[float]:
            if self.ours:
                self.trainer.use_packed(ModelConfig())
                assert self.trainer.forward is not None
            self.trainer.train()
            losses = [entry["loss"] for entry in self.trainer.state.log_history if "loss" in entry]
            del self.trainer
            return losses

    arms: dict[str, Callable[[], Any]] = {"TRL, defaults": Arm(None, checkpointing=True, ours=False)}
    if not options.short:
        arms |= {
            "TRL, no checkpointing": Arm(None, checkpointing=False, ours=False),
            "TRL, rows in our order": Arm(ordered, checkpointing=False, ours=False),
        }
    arms["medjudge"] = Arm(ordered, checkpointing=False, ours=True)
    batches = [ordered[i : i + options.batch] for i in range(0, len(ordered), options.batch)]
    n_computed = [pack([rows[i]["input_ids"][:-1] for i in batch]).n_tokens for batch in batches]
    if options.tuning == "full":
        model = fresh()
        arms["(products alone)"] = lambda: products(model, n_computed)
    taken = in_turn(arms, options.rounds)
    n_parameters = sum(p.numel() for p in fresh().parameters())
    same, own = (
        taken["TRL, defaults" if options.short else "TRL, rows in our order"].values[0],
        taken["medjudge"].values[0],
    )
    report(
        "sft_tokens",
        f"SFT, {options.tuning}, {n_parameters / 1e6:.1f} M parameters",
        taken,
        "TRL, defaults" if options.short else "TRL, no checkpointing",
        per_round=sum(lengths),
        unit="tokens",
        out=options.out,
        facts={
            "rows": f"{len(rows)} of {min(lengths)} to {max(lengths)} tokens, {sum(lengths):,} in all",
            "vocabulary": options.vocab,
            "faster than TRL's defaults": f"{ratio(taken['TRL, defaults'], taken['medjudge']):.2f} x",
            "tokens computed, what rows share counted once": f"{sum(n_computed):,}",
            "mean loss of the last quarter, TRL and medjudge": [
                f"{sum(values[-len(values) // 4 :]) / len(values[-len(values) // 4 :]):.4f}" for values in (same, own)
            ],
            "largest difference of a step's loss on the same batches": "not asked for"
            if options.short
            else max(abs(a - b) for a, b in zip(same, own, strict=True)),
        },
    )


def products(model: Any, n_tokens: list[int]) -> None:
    """The products of the layers, forward and backward, in bfloat16: the machine's own speed on these shapes."""
    shapes = [module.weight.shape for module in model.model.layers[0].modules() if isinstance(module, torch.nn.Linear)]
    weights = [torch.ones(shape, dtype=torch.bfloat16) for shape in shapes]
    for n in n_tokens:
        for weight in weights:
            x, grad = (torch.ones(n, size, dtype=torch.bfloat16) for size in (weight.shape[1], weight.shape[0]))
            for _ in range(len(model.model.layers)):
                x @ weight.T, grad @ weight, grad.T @ x


if __name__ == "__main__":
    main()
