"""A chat template carries every word of a case to the model, or is refused before the first prompt."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from medjudge.diagnostics import preflight
from medjudge.errors import ModelError
from medjudge.models import load
from medjudge.records import Case
from medjudge.rewards.composition import RewardContext, build_plan
from medjudge.tasks.encoding import encode, encode_all, instructions_lead_the_user_turn, render_prompt
from medjudge.tasks.equivalence import EquivalenceContract
from medjudge.tasks.mcq import McqContract
from medjudge.tasks.tokenizers import PLAIN_CHAT_TEMPLATE, plain_chat_template, stop_token_ids
from medjudge.tiny_base.tiny import build_tokenizer
from tests.shared_data import require_shared, shared_tokenizer

CONTRACT = EquivalenceContract(instructions="terse")
SECRET = "Mr Ott, 61, takes 5 mg"
HEAD = "{% for m in messages %}<|start|>{{ m['role'] }}\n"
TAIL = "<|end|>\n{% endfor %}{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"


def case(n: int = 0, words: int = 3) -> Case:
    return Case(
        f"c{n}", {"question": "Dose?", "reference": f"{n} mg", "candidate": f"{SECRET} " + "word " * words}, "1"
    )


def tokenizer_with(template: str) -> Any:
    tokenizer = build_tokenizer([CONTRACT.messages(case())[0]["content"], SECRET] * 4, 400)
    tokenizer.chat_template = template
    return tokenizer


def writing(content: str) -> str:
    """A template that writes this of each turn."""
    return HEAD + "{{ " + content + " }}" + TAIL


HOSTILE = {
    "leaves the turns out": (HEAD + TAIL, "leaves out the user turn"),
    "says the same to all": ("Say 0 or 1.", "leaves out the user turn"),
    "cuts the tail": (writing("m['content'][:300]"), "cuts off the end of the user turn"),
    "cuts the head": (writing("m['content'][-300:]"), "cuts off the start of the user turn"),
    "one line": (writing("m['content'].split() | join(' ')"), "changes white space in the user turn"),
    "lower case": (writing("m['content'] | lower"), "changes upper and lower case in the user turn"),
    "reverses": (writing("m['content'][::-1]"), "leaves out the user turn"),
    "sorts words": (writing("m['content'].split() | sort | join(' ')"), "the user turn"),
    "takes tags off": (writing("m['content'] | striptags"), "the user turn"),
    "escapes": (writing("m['content'] | e"), "changes the words of the user turn"),
    "takes lines off": (writing("m['content'].split('\n') | first"), "cuts off the end of the user turn"),
    "raises": ("{{ raise_exception('no turns') }}", "cannot render a prompt: TemplateError: no turns"),
    "divides by zero": ("{{ 1 // 0 }}", "cannot render a prompt: ZeroDivisionError"),
    "wants another key": ("{{ messages[0]['text'].strip() }}", "cannot render a prompt: UndefinedError"),
    "adds text to a number": ("{{ 1 + messages[0]['content'] }}", "cannot render a prompt: TypeError"),
    "is no Jinja": ("{% for %}", "cannot render a prompt: TemplateSyntaxError"),
    "opens no answer": (HEAD + "{{ m['content'] }}<|end|>\n{% endfor %}", "ignores `add_generation_prompt`"),
}


@pytest.mark.parametrize(("template", "words"), HOSTILE.values(), ids=HOSTILE)
def test_a_template_that_does_not_carry_the_case_is_refused(template: str, words: str) -> None:
    with pytest.raises(ModelError) as caught:
        encode_all(CONTRACT, [case(0), case(1)], tokenizer_with(template), with_target=False)
    message = str(caught.value)
    assert words in message
    assert "the chat template of tokenizer " in message
    assert f"{len(template):,} characters, sha256" in message
    assert "Mr Ott" not in message
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("name", ["qwen3", "phi-3-mini", "phi-4", "smollm2"])
@pytest.mark.parametrize("damage", ["[:300]", " | lower", "[10:]"])
def test_so_it_is_on_real_tokenizers(name: str, damage: str) -> None:
    tokenizer = copy.deepcopy(shared_tokenizer(name))
    for found in ("message['content']", "message.content", "content"):
        if found in tokenizer.chat_template:
            changed = tokenizer.chat_template.replace(found, f"({found}{damage})")
            break
    render_prompt(CONTRACT, case(), tokenizer)
    tokenizer.chat_template = changed
    with pytest.raises(ModelError, match="chat template"):
        render_prompt(CONTRACT, case(), tokenizer)


def test_the_preflight_says_it_as_a_failed_check() -> None:
    plan = build_plan({"correctness": 1.0}, (), RewardContext(CONTRACT))
    found = preflight.run_preflight(
        CONTRACT, [case(i) for i in range(4)], tokenizer_with(HOSTILE["lower case"][0]), plan
    )
    assert not found.passed
    assert "changes upper and lower case in the user turn" in str(found.to_json())


def test_a_long_case_is_looked_through_too() -> None:
    tokenizer = tokenizer_with(writing("m['content'][:9000]"))  # longer than any probe
    assert SECRET in render_prompt(CONTRACT, case(), tokenizer)
    with pytest.raises(ModelError, match="cuts off the end of the user turn of case c0") as caught:
        render_prompt(CONTRACT, case(words=3000), tokenizer)
    assert "Mr Ott" not in str(caught.value)


def test_what_a_template_says_of_a_case_is_not_repeated() -> None:
    refuses = (
        "{% if 'Ott' in messages[-1]['content'] %}{{ raise_exception('bad: ' + messages[-1]['content']) }}{% endif %}"
    )
    with pytest.raises(ModelError, match=r"prompt of case c0 \(TemplateError\)") as caught:
        render_prompt(CONTRACT, case(), tokenizer_with(refuses + writing("m['content']")))
    assert "Mr Ott" not in str(caught.value)


NO_SYSTEM = {
    "raises": "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}",
    "raises an error of its own": "{% if messages[0]['role'] == 'system' %}{{ {}['a'].b.c }}{% endif %}",
    "drops": "{% if messages[0]['role'] == 'system' %}{% set messages = messages[1:] %}{% endif %}",
}


@pytest.mark.parametrize("start", NO_SYSTEM.values(), ids=NO_SYSTEM)
def test_without_a_system_role_the_instructions_lead_the_user_turn(start: str) -> None:
    tokenizer = tokenizer_with(start + writing("m['content'] | trim"))
    system, user = (turn["content"] for turn in CONTRACT.messages(case()))
    text = render_prompt(CONTRACT, case(), tokenizer)
    assert text == f"<|start|>user\n{system}\n\n{user.strip()}<|end|>\n<|start|>assistant\n"
    assert instructions_lead_the_user_turn(CONTRACT, tokenizer)
    assert not instructions_lead_the_user_turn(EquivalenceContract(system_prompt=""), tokenizer)
    assert not instructions_lead_the_user_turn(CONTRACT, tokenizer_with(writing("m['content']")))


def test_a_system_turn_after_the_user_turn_is_put_before_it() -> None:
    reverses = "{% for m in messages | reverse %}<|start|>{{ m['role'] }}\n{{ m['content'] }}" + TAIL
    text = render_prompt(CONTRACT, case(), tokenizer_with(reverses))
    assert text.index("Reply 1 (yes)") < text.index(SECRET)


def test_templates_that_need_no_opening_are_taken() -> None:
    inst = "{% for m in messages %}{% if m['role'] == 'assistant' %}{{ m['content'] }}<|end|>{% else %}"
    inst += "[INST] {{ m['content'] }} [/INST] {% endif %}{% endfor %}"
    assert render_prompt(CONTRACT, case(), tokenizer_with(inst)).endswith("[/INST] ")


def test_a_tokenizer_that_knows_none_of_the_words_is_refused() -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"?": 0, "$": 1}, unk_token="?"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="?", eos_token="$", chat_template=PLAIN_CHAT_TEMPLATE
    )
    with pytest.raises(ModelError, match="2 different prompts the same"):
        encode_all(CONTRACT, [case(0), case(1)], tokenizer, with_target=False)


# --- BOS --------------------------------------------------------------------------------------------------------------


def with_bos(template: str | None) -> Any:
    """A tokenizer that puts its BOS before every text, as Llama's does."""
    from tokenizers.processors import TemplateProcessing

    tokenizer = build_tokenizer([SECRET] * 4, 400)
    tokenizer.add_special_tokens({"bos_token": "<s>"})
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", tokenizer.bos_token_id)]
    )
    tokenizer.chat_template = template
    return tokenizer


def test_plain_keeps_the_tokenizers_bos(tmp_path: Any) -> None:
    made = with_bos(None)
    assert made("a")["input_ids"][0] == made.bos_token_id
    made.save_pretrained(tmp_path)
    tokenizer = load.load_tokenizer(tmp_path, "plain")
    encoded = encode(CONTRACT, case(), tokenizer, with_target=True)
    assert encoded.prompt_ids[0] == tokenizer.bos_token_id
    assert encoded.prompt_ids.count(tokenizer.bos_token_id) == 1
    assert tokenizer.bos_token_id not in (encoded.completion_ids or [])
    assert encoded.prompt_ids == list(tokenizer(encoded.prompt_text.removeprefix("<s>"))["input_ids"])


def test_plain_adds_none_where_the_tokenizer_has_none() -> None:
    tokenizer = build_tokenizer([SECRET] * 4, 400)
    assert plain_chat_template(tokenizer) == PLAIN_CHAT_TEMPLATE


def test_plain_on_a_real_llama_tokenizer() -> None:
    tokenizer = load.load_tokenizer(require_shared("models", "stories260K"), "plain")
    contract = McqContract()
    row = {"question": "Which?", "opa": "a", "opb": "b", "opc": "c", "opd": "d", "cop": 0}
    encoded = encode(contract, contract.read_case(row, "c"), tokenizer, with_target=True)
    by_itself = tokenizer("a")["input_ids"]
    if by_itself[0] == tokenizer.bos_token_id:
        assert encoded.prompt_ids[:2].count(tokenizer.bos_token_id) == 1
    assert encoded.completion_ids is not None
    assert encoded.completion_ids[-1] == stop_token_ids(tokenizer)[0]


def test_a_bos_that_template_and_tokenizer_write_stands_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = with_bos("{{ bos_token }}" + writing("m['content']"))
    honest = encode(CONTRACT, case(), tokenizer, with_target=True)
    assert honest.prompt_ids.count(tokenizer.bos_token_id) == 1
    kind = type(tokenizer)
    ask = kind.__call__

    def stubborn(self: Any, texts: Any, *, add_special_tokens: bool = True, **options: Any) -> Any:
        return ask(self, texts, add_special_tokens=True, **options)

    monkeypatch.setattr(kind, "__call__", stubborn)
    assert encode(CONTRACT, case(), tokenizer, with_target=True) == honest
