"""Cases judged per second: one row at a time, batched `generate`, lm-evaluation-harness and medjudge's engine.

    python benchmarks/evaluate_throughput.py [--rounds 5] [--cases 48] [--layers 8 --intermediate 4096]
    python benchmarks/evaluate_throughput.py --rows MEDMCQA.jsonl --reason-words 45 --max-tokens 256 --out FOLDER

The task is the free-text one: a JSON verdict with letter, confidence and reason, by a small judge that this program
trains once and pads with weights that add nothing: it answers as it did, and costs as one of 27 M parameters. The loop
is the published notebook's: one prompt, one `generate`, in bfloat16 and in float32. The harness (pip install
medjudge[bench]) runs its HF backend on the same prompts, stop string and limit, at the fastest of several batch sizes.
Labels mode reads the letter's probabilities inside the JSON frame and writes nothing, so the longer the reasons, the
more it saves: the second form asks MedMCQA rows (`cop` from 1) for reasons as long as the published (250 characters).
"""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from judges import make, padded, recipe
from medjudge.data.store import read_split
from medjudge.inference.local import LocalEngine, fit_for_inference
from medjudge.inference.prefix import common_prefix, read_prefix, read_prompts
from medjudge.inference.rollouts import batches
from medjudge.models.lineage import load_any
from medjudge.models.load import quiet_libraries
from medjudge.records import Case
from medjudge.tasks.contract import TaskContract
from medjudge.tasks.encoding import encode_all
from medjudge.tasks.tokenizers import decode, stop_token_ids
from side_by_side import arguments, in_turn, ratio, report

BATCH_SIZES = (8, 16, 32, 64)


def main() -> None:
    """Trains or finds the judge, runs the arms in turn, reports."""
    parser = arguments(__doc__)
    parser.add_argument("--cases", type=int, default=48)
    parser.add_argument("--sft-steps", type=int, default=240)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--intermediate", type=int, default=4096)
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--rows", help="MedMCQA rows with explanations, in place of the built-in ones")
    parser.add_argument("--reason-words", type=int, default=12)
    parser.add_argument("--without-lm-eval", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    quiet_libraries()
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    wanted = recipe(
        {
            "kind": "mcq",
            "instructions": "published",
            "max_reason_words": options.reason_words,
            "max_completion_tokens": options.max_tokens,
            "first_index": 1 if options.rows else 0,
        },
        {
            "source": options.rows or "builtin:mcq",
            "group_by": ["question" if options.rows else "block_id"],
            "splits": {"train": 0.8, "test": 0.2},
        },
        sft={"max_steps": options.sft_steps},
        base={"max_steps": 20},
    )
    run_dir = make(wanted)
    contract = wanted.contract
    model, tokenizer, _ = load_any(run_dir / "sft" / "model", wanted.model)
    model = padded(model, options.layers, options.intermediate)
    cases = list(read_split(run_dir / "prepare" / "test.jsonl"))[: options.cases]
    half = copy.deepcopy(model).bfloat16()
    peers = Peers(contract, cases, tokenizer)

    arms: dict[str, Callable[[], Any]] = {
        "one at a time, bfloat16": lambda: peers.one_at_a_time(half),
        "one at a time, float32": lambda: peers.one_at_a_time(model),
    }
    size = fastest(lambda size: peers.batched(model, size), options.cases)
    arms[f"generate, batches of {size}"] = lambda: peers.batched(model, size)
    if not options.without_lm_eval:
        lm_size = fastest(lambda size: peers.harness(model, size), options.cases)
        arms[f"lm-eval, batches of {lm_size}"] = lambda: peers.harness(model, lm_size)
    widened = fit_for_inference(copy.deepcopy(half))
    arms |= {
        "medjudge, generate": lambda: texts(LocalEngine(model, tokenizer).generate(contract, cases)),
        "medjudge, generate, bfloat16 weights": lambda: texts(
            LocalEngine(widened, tokenizer).generate(contract, cases)
        ),
        "medjudge, labels": lambda: LocalEngine(model, tokenizer).label_logprobs(contract, cases),
        "(reading the prompts alone)": lambda: read_all(model, peers.prompts),
    }
    taken = in_turn(arms, options.rounds)
    reference = taken["one at a time, float32"].values[0]
    same = {
        name: sum(a == b for a, b in zip(reference, timed.values[0], strict=True))
        for name, timed in taken.items()
        if isinstance(timed.values[0], list) and timed.values[0] and isinstance(timed.values[0][0], str)
    }
    ours, labels = taken["medjudge, generate"], taken["medjudge, labels"]
    reading = taken["(reading the prompts alone)"]
    lengths = [len(ids) for ids in peers.prompts]
    n_parsed = sum(not hasattr(contract.parse("", text), "reason") for text in reference)
    written = [len(row) for row in tokenizer(reference, add_special_tokens=False)["input_ids"]]
    facts = {
        "model": f"{sum(p.numel() for p in model.parameters()) / 1e6:.1f} M parameters, Qwen3-shaped",
        "prompts": f"{len(cases)} of {min(lengths)} to {max(lengths)} tokens, {common_prefix(peers.prompts)} in common",
        "completions": f"{min(written)} to {max(written)} tokens, {sum(written) / len(written):.0f} on average",
        "completions that parse": f"{n_parsed} of {len(cases)}",
        "texts equal to the float32 loop's": same,
        "generate against the loop in bfloat16": ratios(taken["one at a time, bfloat16"], ours),
        "generate on bfloat16 weights against that loop": ratios(
            taken["one at a time, bfloat16"], taken["medjudge, generate, bfloat16 weights"]
        ),
        "generate against the loop in float32": ratios(taken["one at a time, float32"], ours),
        "labels against our generate": ratios(ours, labels),
        "reading the prompts alone, of labels mode": f"{1 / ratio(labels, reading, 'cpu_s'):.0%} of its CPU time",
    }
    for name, timed in taken.items():
        if name.startswith(("lm-eval", "generate,")):
            facts[f"generate against {name}"] = ratios(timed, ours)
            facts[f"labels against {name}"] = ratios(timed, labels)
    report(
        "evaluate_throughput",
        "Evaluation of a JSON verdict",
        taken,
        "one at a time, bfloat16",
        per_round=len(cases),
        unit="cases",
        out=options.out,
        facts=facts,
    )


class Peers:
    """The other ways of asking, on the very prompts that the contract renders."""

    def __init__(self, contract: TaskContract, cases: Sequence[Case], tokenizer: Any) -> None:
        """Renders the prompts once; tokenising them belongs to each arm's own time where its tool does it."""
        self.contract, self.tokenizer = contract, tokenizer
        encoded = encode_all(contract, cases, tokenizer, with_target=False)
        self.prompts = [row.prompt_ids for row in encoded]
        self.texts = [row.prompt_text for row in encoded]
        self.stop_ids = stop_token_ids(tokenizer)

    @torch.inference_mode()
    def one_at_a_time(self, model: Any) -> list[str]:
        """The published notebook's loop."""
        answers = []
        for text in self.texts:
            inputs = self.tokenizer(text, return_tensors="pt", add_special_tokens=False)
            out = model.generate(
                input_ids=inputs["input_ids"],
                attention_mask=inputs["attention_mask"],
                max_new_tokens=self.contract.max_completion_tokens,
                do_sample=False,
            )
            answers.append(decode(self.tokenizer, out[0, inputs["input_ids"].shape[1] :].tolist(), self.stop_ids))
        return answers

    @torch.inference_mode()
    def batched(self, model: Any, size: int) -> list[str]:
        """transformers' `generate` on batches of like length, padded on the left."""
        order = sorted(range(len(self.texts)), key=lambda i: -len(self.prompts[i]))
        answers = dict.fromkeys(order, "")
        for batch in (order[i : i + size] for i in range(0, len(order), size)):
            inputs = self.tokenizer(
                [self.texts[i] for i in batch],
                return_tensors="pt",
                padding=True,
                padding_side="left",
                add_special_tokens=False,
            )
            out = model.generate(
                input_ids=inputs["input_ids"],
                attention_mask=inputs["attention_mask"],
                max_new_tokens=self.contract.max_completion_tokens,
                do_sample=False,
            )
            for i, row in zip(batch, out[:, inputs["input_ids"].shape[1] :].tolist(), strict=True):
                answers[i] = decode(self.tokenizer, row, self.stop_ids)
        return [answers[i] for i in range(len(order))]

    def harness(self, model: Any, size: int) -> list[str]:
        """lm-evaluation-harness' HF backend."""
        from lm_eval.api.instance import Instance
        from lm_eval.models.huggingface import HFLM

        backend = HFLM(pretrained=model, tokenizer=self.tokenizer, batch_size=size, add_bos_token=False)
        stop = self.tokenizer.convert_ids_to_tokens(self.stop_ids[0])
        settings = {"until": [stop], "max_gen_toks": self.contract.max_completion_tokens, "do_sample": False}
        requests = [Instance("generate_until", {}, (text, settings), i) for i, text in enumerate(self.texts)]
        answers: list[str] = backend.generate_until(requests, disable_tqdm=True)
        return answers


def fastest(run: Callable[[int], Any], n_cases: int) -> int:
    """The batch size at which one run takes the least processor time."""
    seconds = {}
    for size in BATCH_SIZES:
        if size // 2 < n_cases:
            started = time.process_time()
            run(size)
            seconds[size] = time.process_time() - started
    print("  processor seconds by batch size:", {size: round(s, 2) for size, s in seconds.items()}, flush=True)
    return min(seconds, key=lambda size: seconds[size])


@torch.inference_mode()
def read_all(model: Any, prompts: Sequence[Sequence[int]]) -> None:
    """What no way of judging can do without: every prompt read once, what they share once in all."""
    n = common_prefix(prompts)
    prefix = read_prefix(model, prompts[0][:n])
    for batch in batches([len(ids) - n for ids in prompts], [0] * len(prompts), 16384):
        read_prompts(model, [prompts[i] for i in batch], prefix)


def texts(completions: Sequence[Any]) -> list[str]:
    """The completions' texts."""
    return [completion.text for completion in completions]


def ratios(slow: Any, fast: Any) -> str:
    """By wall clock and by processor time."""
    return f"{ratio(slow, fast):.2f} x wall, {ratio(slow, fast, 'cpu_s'):.2f} x CPU"


if __name__ == "__main__":
    main()
