"""The tokenizer of `builtin:scratch`, its training texts and shape. No torch here: plans count tokens without it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from medjudge.records import Case
from medjudge.settings.training import BaseConfig
from medjudge.tasks.contract import TaskContract

if TYPE_CHECKING:
    from transformers import Qwen3Config

END_OF_TEXT, TURN_START, TURN_END = "<|endoftext|>", "<|start|>", "<|end|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}<|start|>{{ message['role'] }}\n{{ message['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)


def build_tokenizer(texts: Iterable[str], vocab_size: int) -> Any:
    """A byte-level BPE tokenizer trained on `texts`; every string round-trips."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=[END_OF_TEXT, TURN_START, TURN_END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=TURN_END,
        pad_token=END_OF_TEXT,
        chat_template=CHAT_TEMPLATE,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def shape_of(config: BaseConfig, n_tokens: int) -> Qwen3Config:
    """The configuration of the model for a tokenizer of `n_tokens` tokens: tied embeddings, rows in multiples of 64."""
    from transformers import Qwen3Config  # imports torch

    return Qwen3Config(
        vocab_size=-(-n_tokens // 64) * 64,
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        num_hidden_layers=config.n_layers,
        num_attention_heads=config.n_heads,
        num_key_value_heads=max(1, config.n_heads // 2),
        head_dim=config.hidden_size // config.n_heads,
        max_position_embeddings=config.max_position_embeddings,
        tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        bos_token_id=None,
    )


def plain_texts(cases: Sequence[Case]) -> list[str]:
    """The distinct texts of the cases: their inputs, then the explanation, a line each. Labels are not among them."""
    texts = ("\n".join([*case.inputs.values(), *([case.reason] if case.reason else [])]) for case in cases)
    return list(dict.fromkeys(texts))


def format_texts(contract: TaskContract, cases: Sequence[Case], n_cases: int = 200) -> list[str]:
    """Some whole prompts and answers, for the tokenizer alone: tags and fixed phrases should cost few tokens."""
    labelled = [case for case in cases if case.gold is not None][:n_cases]
    return [
        text
        for case in labelled
        for text in (*(message["content"] for message in contract.messages(case)), contract.target(case))
    ]
