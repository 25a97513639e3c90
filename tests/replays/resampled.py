"""Resampled until parsed: whoever cannot be read is asked again, until the reply suits the parser.

Published: prometheus-eval (github.com/prometheus-eval/prometheus-eval, `batch_completions_with_retries`): every reply
that does not parse is drawn again at temperature 1, up to ten times, and the reply that parses takes its place.
What happens: that estimates accuracy *given that a reply parses*, not accuracy. Where the judge breaks off more often
on one label than on the other, the replies that are thrown away are no random part, and nothing says how many of them
belonged to which label.
What stops it here: one greedy completion per case, and an unreadable one counts as wrong.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from medjudge.inference.local import LocalEngine
from medjudge.metrics.summary import AnalysisOptions, summarise
from medjudge.models.load import fit_stop_tokens
from medjudge.records import Case, Completion, Judgement, Unparsed, Verdict
from medjudge.tasks.encoding import encode_all
from medjudge.tasks.equivalence import EquivalenceContract
from medjudge.tasks.tokenizers import decode, stop_token_ids
from medjudge.tiny_base.tiny import build_tokenizer
from tests.replays.common import Guard

CONTRACT = EquivalenceContract(system_prompt="", max_completion_tokens=4)
TEMPLATE = (
    "{% for m in messages %}{{ m['content'] }}{% if m['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
)
MAX_RETRIES = 10
MARK = {"1": "=", "0": "#"}
"""The last character of a candidate that is equivalent, and of one that is not."""
REPLIES = {"=": {"1": 0.8, "0": 0.1, "?": 0.1}, "#": {"?": 0.5, "0": 0.4, "1": 0.1}}
"""What the judge says after each: nothing readable to half of the candidates that are not equivalent."""
CASES = [
    Case(f"case-{i:03d}-{gold}", {"question": "q", "reference": f"r{i}", "candidate": f"c{i} {MARK[gold]}"}, gold=gold)
    for i in range(100)
    for gold in ("1", "0")
]


@cache
def judge() -> tuple[Any, Any]:
    """(model, tokenizer): a language model written by hand, whose next character depends on the last one alone."""
    tokenizer = build_tokenizer([], 259)  # every byte is a token
    tokenizer.chat_template = TEMPLATE
    after = {**REPLIES, **{reply: {tokenizer.eos_token: 1.0} for reply in "01?"}}
    width = 16
    model = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=len(tokenizer),
            hidden_size=width,
            intermediate_size=width,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=2,
            head_dim=8,
            tie_word_embeddings=False,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    with torch.no_grad():
        for parameter in (*model.model.layers[0].parameters(), model.model.embed_tokens.weight):
            parameter.zero_()
        # The state's one-hot embedding leaves the last norm as sqrt(width); the head turns it into log-probabilities.
        model.lm_head.weight.fill_(-50.0)
        for state, (token, replies) in enumerate(after.items()):
            model.model.embed_tokens.weight[tokenizer.convert_tokens_to_ids(token), state] = 1.0
            for reply, probability in replies.items():
                row = tokenizer.convert_tokens_to_ids(reply)
                model.lm_head.weight[row, state] = math.log(probability) / math.sqrt(width)
    fit_stop_tokens(model, tokenizer)
    return model.eval(), tokenizer


@torch.no_grad()
def ask(cases: Sequence[Case]) -> list[str]:
    """One reply per case at temperature 1."""
    model, tokenizer = judge()
    rows = [encoded.prompt_ids for encoded in encode_all(CONTRACT, cases, tokenizer, with_target=False)]
    width = max(map(len, rows))
    pad = tokenizer.pad_token_id
    ids = torch.tensor([[pad] * (width - len(row)) + row for row in rows])
    out = model.generate(input_ids=ids, attention_mask=(ids != pad).long(), max_new_tokens=4, do_sample=True)
    return [decode(tokenizer, row, stop_token_ids(tokenizer)) for row in out[:, width:].tolist()]


def parse(cases: Sequence[Case], replies: Sequence[str]) -> list[Judgement]:
    return [CONTRACT.parse(case.case_id, reply) for case, reply in zip(cases, replies, strict=True)]


def until_parsed(cases: Sequence[Case]) -> tuple[list[str], int, list[Judgement]]:
    """(replies, how many were asked for again, the first round's judgements), as published."""
    torch.manual_seed(0)
    replies = ask(cases)
    first, n_again = parse(cases, replies), 0
    for _ in range(MAX_RETRIES):
        failed = [i for i, j in enumerate(parse(cases, replies)) if isinstance(j, Unparsed)]
        if not failed:
            break
        n_again += len(failed)
        for i, reply in zip(failed, ask([cases[i] for i in failed]), strict=True):
            replies[i] = reply
    return replies, n_again, first


def n_right(judgements: Sequence[Judgement]) -> int:
    gold = {case.case_id: case.gold for case in CASES}
    return sum(isinstance(j, Verdict) and j.label == gold[j.case_id] for j in judgements)


@cache
def published() -> tuple[str, ...]:
    replies, n_again, first = until_parsed(CASES)
    final = parse(CASES, replies)
    resampled, once = n_right(final) / len(CASES), n_right(first) / len(CASES)
    n_final, n_first = (sum(isinstance(j, Unparsed) for j in judgements) for judgements in (final, first))
    # By hand: (.8 / .9 + .4 / .5) / 2 = .844 given that a reply parses; (.8 + .4) / 2 = .6 of first replies.
    assert abs(resampled - 0.844) < 0.05
    assert abs(once - 0.6) < 0.05
    return (
        f"published | asked until the reply parses, {n_again} times again: accuracy {100 * resampled:.1f} %, "
        f"unreadable {n_final} of {len(CASES)}",
        f"published | the first replies of the same judge: right {100 * once:.1f} %, "
        f"unreadable {n_first} of {len(CASES)}",
    )


def caught() -> list[str]:
    model, tokenizer = judge()
    engine = LocalEngine(model, tokenizer)
    completions = engine.generate(CONTRACT, CASES)
    assert [c.text for c in completions] == [c.text for c in engine.generate(CONTRACT, CASES)], (
        "replies are drawn again"
    )
    judgements = parse(CASES, [completion.text for completion in completions])
    found = summarise(
        CASES, {"judge": judgements}, contract=CONTRACT, split="test", options=AnalysisOptions(n_resamples=100)
    ).models["judge"]
    accuracy = found.metrics["accuracy"].value
    # Greedy: 1 where the candidate is equivalent, unreadable where it is not.
    assert (accuracy, found.n_unparsed) == (0.5, len(CASES) // 2), "replies are drawn again"
    return [
        f"medjudge  | one greedy completion per case: accuracy {100 * accuracy:.1f} %, unparsed {found.n_unparsed} of "
        f"{found.n}, all where the candidate is not equivalent: {found.confusion.counts[0][-1]} of "
        f"{found.per_class['0'].support}"
    ]


def replay(folder: Path) -> list[str]:
    return [*published(), *caught()]


def _ask_again(patch: pytest.MonkeyPatch) -> None:
    def generate(engine: LocalEngine, contract: Any, cases: Sequence[Case]) -> list[Completion]:
        return [Completion(text, len(text), stopped=True) for text in until_parsed(cases)[0]]

    patch.setattr(LocalEngine, "generate", generate)


GUARDS = (Guard("the engine asks again until a reply parses", _ask_again, "replies are drawn again"),)
