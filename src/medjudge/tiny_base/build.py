"""Make the weights of `builtin:tiny` anew, from nothing but the package's own texts: `make tiny-base`.

    python -m medjudge.tiny_base.build [FOLDER]      default: where the shipped weights lie

Writes weights (float16 safetensors), tokenizer, lineage, a model card and the log of the training. The same machine and
thread count give the same weights; another one differs in the last bits, and the card then carries another hash.
"""

from __future__ import annotations

import platform
import random
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jinja2 import Environment, PackageLoader, StrictUndefined
from rich.console import Console

from medjudge import artifacts
from medjudge.models.lineage import Lineage, weights_sha256
from medjudge.models.load import TINY_DIR, count_parameters, quiet_libraries
from medjudge.settings.model import TINY_BASE
from medjudge.settings.training import BaseConfig
from medjudge.synthetic.appropriateness import load_variants, variants_of
from medjudge.synthetic.facts import load_facts
from medjudge.synthetic.partition import Part, facts_of
from medjudge.tiny_base import corpus
from medjudge.tiny_base.documents import Document, MarkedChat
from medjudge.tiny_base.pretraining import PretrainingPlan, pretrain, tie_queries_to_keys
from medjudge.tiny_base.tiny import build_model, build_tokenizer
from medjudge.tiny_base.tiny_probe import options_right, orders_rated, skill, statements_known
from medjudge.version import __version__

SHAPE = BaseConfig(
    vocab_size=8192, hidden_size=256, n_layers=4, n_heads=8, intermediate_size=768, max_position_embeddings=2048
)
SEED = 42


@dataclass(frozen=True, slots=True)
class Phase:
    """A stretch of pretraining with its own texts; momentum and learning rate begin anew."""

    epoch: Callable[[random.Random, int], list[Document]]
    plan: PretrainingPlan
    seed: int
    skill: Callable[[random.Random], Document] | None = None
    """Documents whose learning ends the stretch, before the plan's last step."""


PHASES = (
    Phase(corpus.words_epoch, PretrainingPlan(n_steps=1000, decay_from=0.99), SEED, corpus.word_list),
    Phase(
        corpus.lessons_epoch,
        PretrainingPlan(n_steps=1000, decay_from=0.99),
        SEED + 1,
        partial(corpus.find, language="en"),
    ),
    Phase(corpus.practice_epoch, PretrainingPlan(n_steps=450, learning_rate=2.5e-3, decay_from=0.99), SEED + 2),
    Phase(corpus.epoch, PretrainingPlan(n_steps=1100, learning_rate=2e-3, decay_from=0.3), SEED + 3),
    Phase(
        corpus.judging_epoch,
        PretrainingPlan(n_steps=1200, learning_rate=2e-3, decay_from=0.3, max_tokens=448),
        SEED + 4,
    ),
)
LEARNED, N_SKILL_DOCUMENTS = 0.95, 40
"""Share of letters right, on so many documents, from which a skill counts as learned."""
PARTS: dict[str, Part] = {"asked": "pretraining", "never asked": "task"}
"""What the log calls the facts that pretraining asked about, and the others."""
PROBES = {"options": options_right, "statements": statements_known, "orders": orders_rated}
N_TOKENIZER_EPOCHS = 2
"""Readings of the corpus on which the tokenizer is trained."""
N_PROBED = 1000
"""Questions, orders, and facts at most, by which is told what the model has learned."""
LOG = "training_log.json"
CARD = "README.md"


def build(
    folder: Path, console: Console, phases: Sequence[Phase] = PHASES, shape: BaseConfig = SHAPE
) -> dict[str, Any]:
    """Trains tokenizer and model and puts them into `folder`, whole or not at all. Returns the recorded summary."""
    quiet_libraries()
    rng = random.Random(SEED)
    texts = [_as_text(document) for _ in range(N_TOKENIZER_EPOCHS) for document in corpus.plain_epoch(rng)]
    texts += corpus.answer_formats(rng)
    tokenizer = build_tokenizer(texts, shape.vocab_size)
    model = build_model(shape, tokenizer, SEED)
    tie_queries_to_keys(model)
    log: list[dict[str, float]] = []
    for number, phase in enumerate(phases, 1):
        model.half().float()  # each phase starts from weights as they are shipped
        before = log[-1] if log else {"step": 0, "tokens": 0, "wall_s": 0.0}

        def is_learned(
            draw: Callable[[random.Random], Document] | None = phase.skill, plan: PretrainingPlan = phase.plan
        ) -> bool:
            return (
                draw is not None
                and skill(model, tokenizer, draw, plan.answer_weight, N_SKILL_DOCUMENTS, SEED) >= LEARNED
            )

        def show(entry: dict[str, float], number: int = number, plan: PretrainingPlan = phase.plan) -> None:
            console.print(
                f"tiny-base {number}/{len(phases)}: step {entry['step']}/{plan.n_steps}  loss {entry['loss']:.3f}  "
                f"{entry['wall_s'] / 60:.1f} min"
            )

        entries = pretrain(
            model, tokenizer, phase.epoch, phase.plan, seed=phase.seed, on_log=show, is_learned=is_learned
        )
        log += [_after(before, entry) for entry in entries]
    learned = {
        name: {measure: round(share(model, tokenizer, part, N_PROBED, SEED), 3) for measure, share in PROBES.items()}
        for name, part in PARTS.items()
    }
    return _save(folder, model, tokenizer, learned, log)


def _save(
    folder: Path, model: Any, tokenizer: Any, learned: Mapping[str, Any], log: list[dict[str, float]]
) -> dict[str, Any]:
    """Model, tokenizer, log and card into `folder`, in the place of an earlier one. Returns the recorded summary."""
    work = folder.with_name(folder.name + ".new")
    shutil.rmtree(work, ignore_errors=True)
    model.half().save_pretrained(work)
    tokenizer.save_pretrained(work)
    digest = weights_sha256(work)
    Lineage(kind="base", stage="pretraining", weights_sha256=digest, base=TINY_BASE).write(work)
    summary = {
        "weights_sha256": digest,
        "n_parameters": count_parameters(model)[1],
        "n_facts": len(load_facts()),
        "n_facts_asked": len(facts_of("pretraining")),
        "n_situations": len(load_variants()),
        "n_situations_asked": len(variants_of("pretraining")),
        "learned": learned,
        "n_tokens": int(log[-1]["tokens"]),
        "wall_s": log[-1]["wall_s"],
        "hardware": f"{platform.machine()}, {torch.get_num_threads()} CPU threads",
        "versions": {"medjudge": __version__, "torch": torch.__version__},
        "seed": SEED,
    }
    artifacts.write_json(work / LOG, {**summary, "log": log})
    artifacts.write_text(work / CARD, card(summary, log))
    shutil.rmtree(folder, ignore_errors=True)
    work.rename(folder)
    return summary


def _after(before: dict[str, float], entry: dict[str, float]) -> dict[str, float]:
    """A phase's log entry, counted from the start of the first phase."""
    return {**entry, **{key: before[key] + entry[key] for key in ("step", "tokens", "wall_s")}}


def _as_text(document: Document) -> str:
    match document:
        case str():
            return document
        case tuple():
            return "".join(span.text for span in document)
        case MarkedChat():
            answer = document.answer if isinstance(document.answer, str) else _as_text(document.answer)
            return "".join(span.text for span in document.asked) + "\n" + answer
    return "\n".join(message["content"] for message in document)


def card(summary: dict[str, Any], log: list[dict[str, float]]) -> str:
    """The model card, in the form that model hubs read, every figure from the training itself."""
    points = [log[round(i * (len(log) - 1) / 9)] for i in range(10)] if len(log) > 10 else log
    templates = Environment(loader=PackageLoader("medjudge.reporting"), undefined=StrictUndefined, autoescape=False)
    return templates.get_template("tiny_card.md.j2").render(**summary, points=points, log_name=LOG) + "\n"


def main() -> None:
    """The command."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else TINY_DIR
    console = Console(highlight=False)
    summary = build(folder, console)
    for name, found in summary["learned"].items():
        console.print(
            f"facts that were {name}: {found['options']:.1%} of questions right (chance 25 %), "
            f"{found['statements']:.1%} of statements completed"
        )
    console.print(f"wrote {folder}: {summary['n_parameters']:,} parameters, weights {summary['weights_sha256'][:12]}")


if __name__ == "__main__":
    main()
