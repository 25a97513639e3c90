from __future__ import annotations

import statistics
from dataclasses import replace
from functools import cache
from typing import Any

import pytest

from medjudge.errors import DataError, ModelError
from medjudge.records import Case, Verdict
from medjudge.tasks.appropriateness import AppropriatenessContract
from medjudge.tasks.contract import TaskContract
from medjudge.tasks.encoding import encode, encode_all, encode_labels, render_prompt
from medjudge.tasks.equivalence import EquivalenceContract
from medjudge.tasks.mcq import McqContract
from medjudge.tasks.rubric import RubricContract
from medjudge.tasks.tokenizers import PLAIN_CHAT_TEMPLATE, decode, stop_token_ids
from tests.shared_data import require_shared, shared_rows, shared_tokenizer

TOKENIZERS = ["qwen3", "phi-3-mini", "phi-4", "smollm2"]
STOPS = {
    "qwen3": ["<|im_end|>"],
    "phi-3-mini": ["<|end|>", "<|endoftext|>"],
    "phi-4": ["<|im_end|>"],
    "smollm2": ["<|im_end|>"],
}
CLOSED_BLOCK = "<think>\n\n</think>\n\n"
# Room for every word, so that no text is cut where the tests compare texts.
ROOMY = {"max_prompt_tokens": 100_000, "max_completion_tokens": 100_000}
CONTRACTS: dict[str, TaskContract] = {
    "mcq": McqContract(first_index=1, **ROOMY),
    "mcq, thinking": McqContract(first_index=1, thinking=True, **ROOMY),
    "equivalence": EquivalenceContract(**ROOMY),
    "equivalence, thinking": EquivalenceContract(thinking=True, language="fr", **ROOMY),
    "rubric": RubricContract(**ROOMY),
    "rubric, thinking": RubricContract(thinking=True, **ROOMY),
    "rubric, score only": RubricContract(form="score_only", **ROOMY),
    "appropriateness": AppropriatenessContract(**ROOMY),
    "appropriateness, thinking off": AppropriatenessContract(thinking=False, **ROOMY),
    "appropriateness, answer only": AppropriatenessContract(form="answer_only", **ROOMY),
}


@cache
def real_rows(kind: str) -> list[dict[str, Any]]:
    """About twenty-five rows of each task's real set, keyed by the contract's fields."""
    if kind == "mcq":
        return shared_rows("data", "medmcqa_train", "medmcqa_train.jsonl")[::130]
    if kind == "equivalence":
        return shared_rows("data", "fr_oeqa_judge", "fr_oeqa_judge.jsonl")[::33]
    if kind == "rubric":
        rows = shared_rows("data", "prometheus_likert5", "prometheus_likert5.jsonl.gz")[::18]
        for row in rows:
            score = int(statistics.median(row["gpt4_scores"]))
            feedback = row["gpt4_feedback"][row["gpt4_scores"].index(score)]
            row |= {"input": row["instruction"], "output": row["response"], "score": score, "feedback": feedback}
        return rows
    rows = shared_rows("data", "acr_appropriateness", "acr_appropriateness.jsonl.gz")[::290]
    worked = shared_rows("data", "acr_appropriateness", "examples_with_evidence.jsonl")
    worked = [{**row, "evidence": row.get("citations"), "reasoning": row.get("acr_traces")} for row in worked]
    return [{**row, "condition": row["topic"]} for row in [*rows, *worked]]


def real_cases(contract: TaskContract) -> list[Case]:
    return [contract.read_case(row, f"{contract.kind}-{i}") for i, row in enumerate(real_rows(contract.kind))]


def ids_of(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("contract", CONTRACTS.values(), ids=CONTRACTS)
def test_sft_rollout_and_evaluation_agree_token_by_token(contract, name):
    tokenizer, cases = shared_tokenizer(name), real_cases(contract)
    stops = stop_token_ids(tokenizer)
    taught = encode_all(contract, cases, tokenizer, with_target=True)
    for case, sft in zip(cases, taught, strict=True):
        rollout = encode(contract, case, tokenizer, with_target=False)
        target = contract.target(case)
        # One prompt everywhere, and it is the template's own, tokenised by the tokenizer itself.
        assert rollout.completion_ids is None
        assert (rollout.prompt_text, rollout.prompt_ids) == (sft.prompt_text, sft.prompt_ids)
        messages = [dict(turn) for turn in contract.messages(case)]
        templated = tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, enable_thinking=contract.thinking, return_dict=True
        )
        assert list(templated["input_ids"]) == sft.prompt_ids
        # Prompt and target make the ids of the whole conversation, and only the target's carry loss.
        assert sft.completion_ids is not None
        whole = sft.prompt_ids + sft.completion_ids
        assert whole == ids_of(tokenizer, sft.prompt_text + target + tokenizer.convert_ids_to_tokens(stops[0]))
        # The target ends with the token that ends generation, which stands nowhere else in it.
        assert sft.completion_ids[-1] == stops[0]
        assert not set(sft.completion_ids[:-1]) & set(stops)
        # What generation would give back is the target, and the parser reads the gold label in it.
        assert decode(tokenizer, sft.completion_ids, stops) == target
        verdict = contract.parse(case.case_id, target)
        assert isinstance(verdict, Verdict)
        assert verdict.label == case.gold
        assert (sft.n_words_cut, sft.n_reason_words_cut) == (0, 0)


@pytest.mark.parametrize("contract", CONTRACTS.values(), ids=CONTRACTS)
def test_qwen3_closes_its_thinking_block_in_the_prompt_and_nowhere_else(contract):
    tokenizer, case = shared_tokenizer("qwen3"), real_cases(contract)[0]
    encoded = encode(contract, case, tokenizer, with_target=True)
    target = decode(tokenizer, encoded.completion_ids or [], stop_token_ids(tokenizer))
    assert encoded.prompt_text.endswith("<|im_start|>assistant\n" + ("" if contract.thinking else CLOSED_BLOCK))
    assert encoded.prompt_text.count(CLOSED_BLOCK) == (0 if contract.thinking else 1)
    if not contract.thinking:
        assert not target.startswith(CLOSED_BLOCK)


@pytest.mark.parametrize("kind", ["mcq", "equivalence", "rubric"])
def test_a_judge_trained_in_the_wrong_mode_is_told_so(kind):
    on, off = CONTRACTS[f"{kind}, thinking"], CONTRACTS[kind]
    case = real_cases(off)[0]
    assert "thinking is off" in getattr(off.parse("c", CLOSED_BLOCK + off.target(case)), "reason", "")
    assert "thinking is on" in getattr(on.parse("c", off.target(case)), "reason", "")


@pytest.mark.parametrize("name", TOKENIZERS)
def test_stop_tokens_come_from_the_template(name):
    tokenizer = shared_tokenizer(name)
    assert tokenizer.convert_ids_to_tokens(stop_token_ids(tokenizer)) == STOPS[name]


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("kind", ["equivalence", "rubric, score only", "appropriateness, answer only"])
def test_closed_completions_are_what_sft_teaches(kind, name):
    contract, tokenizer = CONTRACTS[kind], shared_tokenizer(name)
    case = real_cases(contract)[0]
    closed = contract.closed_completions()
    assert closed is not None
    assert list(closed) == list(contract.labels)
    for label, completion in closed.items():
        assert contract.target(replace(case, gold=label)) == completion
        encoded = encode(contract, replace(case, gold=label), tokenizer, with_target=True)
        assert decode(tokenizer, encoded.completion_ids or [], stop_token_ids(tokenizer)) == completion


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("kind", [kind for kind, contract in CONTRACTS.items() if contract.label_frame() is not None])
def test_labels_are_tokenised_as_the_target_is(kind, name):
    contract, tokenizer = CONTRACTS[kind], shared_tokenizer(name)
    frame = contract.label_frame()
    cases = real_cases(contract)[:4]
    encoded = encode_all(contract, cases, tokenizer, with_target=False)
    found = encode_labels(contract, encoded, tokenizer)
    assert all(ids is found[0] for ids in found)  # their prompts end with the same header
    for label, label_ids in zip(contract.labels, found[0].labels, strict=True):
        ids = [*found[0].forced, *label_ids]
        text = decode(tokenizer, ids, stop_token_ids(tokenizer))
        assert (frame.forced + frame.continuations[label]).startswith(text)
        assert (ids[-1] == stop_token_ids(tokenizer)[0]) == frame.ends
        if kind != "rubric":  # whose targets hold feedback where the frame has none
            target = encode(contract, replace(cases[0], gold=label), tokenizer, with_target=True).completion_ids
            assert target[: len(ids)] == ids
    if frame.forced:
        assert decode(tokenizer, found[0].forced, ()).strip() == frame.forced.strip()
    else:
        assert found[0].forced == ()


def test_labels_that_do_not_fit_the_limit_are_refused():
    contract, tokenizer = (
        AppropriatenessContract(form="answer_only", max_completion_tokens=5),
        shared_tokenizer("qwen3"),
    )
    encoded = encode_all(contract, real_cases(contract)[:1], tokenizer, with_target=False)
    with pytest.raises(DataError, match=r"a label takes \d+ tokens, but max_completion_tokens is 5"):
        encode_labels(contract, encoded, tokenizer)


def test_without_gold_there_is_no_target():
    contract, tokenizer = CONTRACTS["equivalence"], shared_tokenizer("smollm2")
    cases = real_cases(contract)[:3]
    cases[1] = replace(cases[1], gold=None)
    encoded = encode_all(contract, cases, tokenizer, with_target=True)
    assert [row.completion_ids is None for row in encoded] == [False, True, False]
    assert encode_all(contract, [], tokenizer, with_target=True) == []


# --- decoding ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TOKENIZERS)
def test_decode_stops_at_the_first_stop_token_and_drops_padding(name):
    tokenizer = shared_tokenizer(name)
    stops = stop_token_ids(tokenizer)
    answer = ids_of(tokenizer, "a  b , c")
    text = decode(tokenizer, answer, stops)
    assert text == "a  b , c"  # no clean-up of spaces
    for tail in ([stops[0]], [stops[-1], *answer], [stops[0], tokenizer.pad_token_id], [tokenizer.pad_token_id] * 3):
        assert decode(tokenizer, answer + tail, stops) == text
    assert decode(tokenizer, [], stops) == ""
    assert decode(tokenizer, [stops[0]], stops) == ""


def test_decode_keeps_other_special_tokens_for_the_parser_to_see():
    tokenizer = shared_tokenizer("qwen3")
    ids = ids_of(tokenizer, "1<|im_start|>")
    assert decode(tokenizer, ids, stop_token_ids(tokenizer)) == "1<|im_start|>"


# --- lengths ----------------------------------------------------------------------------------------------------------


def long_case() -> Case:
    texts = {"question": "one two three", "reference": "r " * 30, "candidate": "word " * 2000}
    return Case("long", {name: text.strip() for name, text in texts.items()}, gold="1")


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_long_prompt_loses_words_of_its_longest_field_and_no_more_than_needed(name):
    tokenizer, case = shared_tokenizer(name), long_case()
    contract = EquivalenceContract(max_prompt_tokens=500)
    encoded = encode(contract, case, tokenizer, with_target=True)
    assert 490 <= len(encoded.prompt_ids) <= 500
    kept = 2000 - encoded.n_words_cut
    inputs = {**case.inputs, "candidate": " ".join(["word"] * kept)}
    assert encoded.prompt_text == render_prompt(contract, replace(case, inputs=inputs), tokenizer)
    assert encoded.prompt_text.endswith(encode(contract, case, tokenizer, with_target=False).prompt_text[-40:])
    assert encoded.completion_ids == encode(EquivalenceContract(), case, tokenizer, with_target=True).completion_ids


def test_the_limit_can_be_given_and_a_prompt_that_just_fits_stays_whole():
    contract, tokenizer, case = (
        EquivalenceContract(),
        shared_tokenizer("smollm2"),
        real_cases(CONTRACTS["equivalence"])[0],
    )
    whole = encode(contract, case, tokenizer, with_target=False)
    n = len(whole.prompt_ids)
    assert encode(contract, case, tokenizer, with_target=False, max_prompt_tokens=n) == whole
    shorter = encode(contract, case, tokenizer, with_target=False, max_prompt_tokens=n - 1)
    assert len(shorter.prompt_ids) < n
    assert shorter.n_words_cut >= 1


def test_a_run_without_spaces_is_cut_too():
    tokenizer = shared_tokenizer("smollm2")
    case = Case("c", {"question": "q", "reference": "r", "candidate": "和" * 5000}, gold="1")
    encoded = encode(EquivalenceContract(max_prompt_tokens=400), case, tokenizer, with_target=False)
    assert len(encoded.prompt_ids) <= 400
    assert encoded.n_words_cut > 0


def test_a_long_prompt_can_be_an_error_that_names_the_case_and_both_numbers():
    tokenizer = shared_tokenizer("smollm2")
    n = len(encode(EquivalenceContract(**ROOMY), long_case(), tokenizer, with_target=False).prompt_ids)
    contract = EquivalenceContract(on_long_prompt="error", max_prompt_tokens=500)
    with pytest.raises(DataError, match=rf"case long: .* {n} tokens, .* 500"):
        encode(contract, long_case(), tokenizer, with_target=False)


def test_a_prompt_that_can_never_fit_is_an_error():
    with pytest.raises(DataError, match=r"case long: .* even with every field cut to one word, .* 20"):
        encode(EquivalenceContract(max_prompt_tokens=20), long_case(), shared_tokenizer("smollm2"), with_target=False)


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("kind", ["mcq, thinking", "rubric", "appropriateness"])
def test_a_long_reason_is_cut_so_that_the_target_can_be_generated(kind, name):
    tokenizer = shared_tokenizer(name)
    contract = CONTRACTS[kind].model_copy(update={"max_completion_tokens": 90})
    case = replace(real_cases(contract)[0], reason="Because of collagen. " * 100)
    encoded = encode(contract, case, tokenizer, with_target=True)
    assert encoded.completion_ids is not None
    assert 80 <= len(encoded.completion_ids) <= 90
    assert encoded.n_reason_words_cut > 0
    verdict = contract.parse("c", decode(tokenizer, encoded.completion_ids, stop_token_ids(tokenizer)))
    assert isinstance(verdict, Verdict)
    assert verdict.label == case.gold


def test_a_target_that_can_never_fit_is_an_error():
    contract = AppropriatenessContract(max_completion_tokens=5)
    with pytest.raises(DataError, match=r"case appropriateness-0: .* max_completion_tokens is 5"):
        encode(contract, real_cases(contract)[0], shared_tokenizer("qwen3"), with_target=True)


# --- templates --------------------------------------------------------------------------------------------------------


class Retemplated:
    """A real tokenizer under another chat template; the tokenizer itself stays as it is."""

    def __init__(self, tokenizer: Any, chat_template: str | None) -> None:
        self._tokenizer, self.chat_template = tokenizer, chat_template

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._tokenizer(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    def apply_chat_template(self, messages: Any, **kwargs: Any) -> Any:
        return self._tokenizer.apply_chat_template(messages, chat_template=self.chat_template, **kwargs)


TURNS = "{% for m in messages %}{% if m['role'] != 'system' %}{{ '[' + m['role'] + ']' + m['content'] + '<|im_end|>' }}"
TURNS += "{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '[assistant]' }}{% endif %}"
REFUSES = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + TURNS


def case_of(contract: TaskContract) -> Case:
    return contract.read_case({"question": "Q?", "reference": "r", "candidate": "c", "label": 1}, "c")


def test_no_chat_template_says_what_to_set():
    with pytest.raises(ModelError, match=r"model.chat_template"):
        stop_token_ids(Retemplated(shared_tokenizer("smollm2"), None))


@pytest.mark.parametrize("template", [TURNS, REFUSES], ids=["drops", "refuses"])
def test_system_text_leads_the_user_turn_where_the_role_is_not_taken(template):
    contract = EquivalenceContract(instructions="terse")
    tokenizer = Retemplated(shared_tokenizer("smollm2"), template)
    text = render_prompt(contract, case_of(contract), tokenizer)
    system, user = (turn["content"] for turn in contract.messages(case_of(contract)))
    assert text == f"[user]{system}\n\n{user}<|im_end|>[assistant]"


def test_an_opened_thinking_block_is_left_to_the_completion():
    template = TURNS.replace("'[assistant]'", "'[assistant]<think>\n'")
    contract = EquivalenceContract(thinking=True)
    text = render_prompt(contract, case_of(contract), Retemplated(shared_tokenizer("smollm2"), template))
    assert text.endswith("[assistant]")


def test_a_template_that_cannot_render_is_a_model_error():
    tokenizer = Retemplated(shared_tokenizer("smollm2"), "{{ raise_exception('never') }}")
    with pytest.raises(ModelError, match="never"):
        render_prompt(EquivalenceContract(), case_of(EquivalenceContract()), tokenizer)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_the_plain_template(name):
    tokenizer = Retemplated(shared_tokenizer(name), PLAIN_CHAT_TEMPLATE)
    contract = CONTRACTS["mcq"]
    for case in real_cases(contract)[:10]:
        encoded = encode(contract, case, tokenizer, with_target=True)
        assert encoded.prompt_text.endswith("\nassistant:\n")
        assert encoded.completion_ids is not None
        assert encoded.completion_ids[-1] == tokenizer.eos_token_id
        assert decode(tokenizer, encoded.completion_ids, stop_token_ids(tokenizer)) == contract.target(case)


def test_the_plain_template_on_a_tokenizer_that_has_none():
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(require_shared("models", "stories260K"))
    with pytest.raises(ModelError, match="has no chat template"):
        stop_token_ids(tokenizer)
    tokenizer.chat_template = PLAIN_CHAT_TEMPLATE  # noticed, although the tokenizer was looked at before
    contract = CONTRACTS["mcq"]
    for case in real_cases(contract)[:10]:
        encoded = encode(contract, case, tokenizer, with_target=True)
        assert decode(tokenizer, encoded.completion_ids or [], stop_token_ids(tokenizer)) == contract.target(case)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_row_cannot_end_a_turn_or_open_one(name):
    tokenizer = shared_tokenizer(name)
    contract = AppropriatenessContract()
    stop = tokenizer.convert_ids_to_tokens(stop_token_ids(tokenizer)[0])
    row = {"condition": "x", "variant": "y", "procedure": "z", "appropriateness": LABEL, "reasoning": "as before"}
    honest = encode(contract, contract.read_case(row, "c"), tokenizer, with_target=True)
    hostile = {**row, "variant": f"y{stop}z", "reasoning": f"stop {stop} here"}
    encoded = encode(contract, contract.read_case(hostile, "c"), tokenizer, with_target=True)
    stop_id = stop_token_ids(tokenizer)[0]
    assert encoded.prompt_ids.count(stop_id) == honest.prompt_ids.count(stop_id)
    assert encoded.completion_ids is not None
    assert encoded.completion_ids.count(stop_id) == 1
    verdict = contract.parse("c", decode(tokenizer, encoded.completion_ids, [stop_id]))
    assert isinstance(verdict, Verdict)
    assert verdict.label == LABEL


LABEL = "Usually Appropriate"


class Joining:
    """A tokenizer that reads "):" and "1" together: what `prompt + target` as one text would do to a prompt."""

    chat_template = "x"
    eos_token, eos_token_id, pad_token_id = "$", 0, None
    all_special_tokens: tuple[str, ...] = ("$",)
    all_special_ids = (0,)

    def get_added_vocab(self) -> dict[str, int]:
        return {"$": 0}

    def convert_ids_to_tokens(self, token: int) -> str:
        return "$" if token == 0 else chr(token)

    def apply_chat_template(self, messages: Any, *, add_generation_prompt: bool, **_: Any) -> str:
        turns = "".join(f"{turn['role']}: {turn['content']}$" for turn in messages)
        return turns + ("assistant (judge):" if add_generation_prompt else "")

    def __call__(self, texts: list[str], **_: Any) -> dict[str, list[list[int]]]:
        return {"input_ids": [[0 if c == "$" else ord(c) for c in text.replace("):1", "\ue000")] for text in texts]}

    def decode(self, ids: list[int], **_: Any) -> str:
        return "".join(self.convert_ids_to_tokens(token) for token in ids).replace("\ue000", "):1")


def test_the_prompts_own_ids_win_where_a_tokenizer_joins_prompt_and_target():
    contract, tokenizer = EquivalenceContract(instructions="terse"), Joining()
    encoded = encode(contract, case_of(contract), tokenizer, with_target=True)
    assert encoded.prompt_ids[-1] == ord(":")
    assert encoded.completion_ids == [ord("1"), 0]


def test_a_tokenizer_that_cannot_give_the_target_back_is_refused(monkeypatch):
    monkeypatch.setattr(Joining, "decode", lambda self, ids, **_: "?")
    contract = EquivalenceContract(instructions="terse")
    with pytest.raises(ModelError, match="joins the end of the prompt"):
        encode(contract, case_of(contract), Joining(), with_target=True)
