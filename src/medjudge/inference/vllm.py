"""The engine on vLLM, for many cases on a GPU: `--model NAME=vllm:DIR`, or `evaluate.engine = "vllm"`.

Prompts are rendered, shortened and tokenised here by the contract and handed over as token ids, so a judge sees exactly
what it sees under transformers. A running `vllm serve` is asked as an endpoint instead (`openai:MODEL@URL`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

from transformers import AutoConfig

from medjudge.errors import ConfigError, ModelError
from medjudge.inference.label_reading import label_scores
from medjudge.machine import pick_device
from medjudge.models.lineage import Located
from medjudge.models.load import check_context, load_tokenizer, pick_dtype
from medjudge.records import Case, Completion, LabelScores
from medjudge.settings.model import ModelConfig
from medjudge.tasks.contract import TaskContract
from medjudge.tasks.encoding import Encoded, LabelIds, encode_all, encode_labels
from medjudge.tasks.tokenizers import decode, stop_token_ids

LARGEST_RANK = 512
"""vLLM reserves room for adapters up to a rank, and takes one of these: 8, 16, 32, 64, 128, 256, 512."""


class VllmEngine:
    """A model folder in vLLM's offline engine; an adapter on its parent, as vLLM's own LoRA."""

    def __init__(self, located: Located, config: ModelConfig, *, seed: int) -> None:
        """Loads the weights. Raises ConfigError where vLLM is not installed, ModelError where it cannot load them."""
        vllm = import_vllm()
        self._vllm: Any = vllm
        self.tokenizer = load_tokenizer(located.tokenizer_folder, config.chat_template)
        self.on_progress: Callable[[int], None] = lambda n: None
        weights = located.parent or located.folder
        self._config = AutoConfig.from_pretrained(weights, trust_remote_code=False, local_files_only=True)
        options: dict[str, Any] = {
            "model": str(weights),
            "tokenizer": str(located.tokenizer_folder),
            "dtype": str(pick_dtype(config.dtype, pick_device(config.device))).removeprefix("torch."),
            "seed": seed,
            "trust_remote_code": False,
            # The model's own sampling advice must not leak into what is asked here.
            "generation_config": "vllm",
        }
        self._adapter: Any = None
        if located.parent is not None:
            options |= {"enable_lora": True, "max_lora_rank": _room_for(located)}
            self._adapter = vllm.lora.request.LoRARequest("judge", 1, str(located.folder))
        try:
            self._llm = vllm.LLM(**options)
        except (ValueError, RuntimeError, OSError, NotImplementedError) as error:
            first_line = str(error).strip().partition("\n")[0]
            raise ModelError(
                f"vLLM cannot load {located.folder} ({type(error).__name__}): {first_line} Expected a model that it "
                "serves. Ask it without vllm: to use transformers."
            ) from None

    def generate(self, contract: TaskContract, cases: Sequence[Case]) -> list[Completion]:
        """The likeliest completion of each case."""
        return [row[0] for row in self._complete(contract, cases, 1, temperature=0.0, seed=None)]

    def sample(
        self, contract: TaskContract, cases: Sequence[Case], n_per_case: int, *, temperature: float, seed: int
    ) -> list[list[Completion]]:
        """(n_cases, n_per_case) completions; one seed gives the same for the same cases, by vLLM's own generator."""
        return self._complete(contract, cases, n_per_case, temperature=temperature, seed=seed)

    def _complete(
        self, contract: TaskContract, cases: Sequence[Case], n_per_case: int, *, temperature: float, seed: int | None
    ) -> list[list[Completion]]:
        encoded = encode_all(contract, cases, self.tokenizer, with_target=False)
        stop_ids = stop_token_ids(self.tokenizer)
        self._check_length([row.prompt_ids for row in encoded], contract.max_completion_tokens)
        shared = {
            "n": n_per_case,
            "temperature": temperature,
            "max_tokens": contract.max_completion_tokens,
            # Our targets' stop tokens alone end a completion, as under transformers.
            "stop_token_ids": list(stop_ids),
            "ignore_eos": True,
            "detokenize": False,
        }
        # Each case and sample has a seed of its own (vLLM counts on from it for the samples of a case): under one seed
        # all cases would be drawn by the same chance.
        seeds = [None if seed is None else (seed + i) * n_per_case for i in range(len(encoded))]
        settings = [self._vllm.SamplingParams(**shared, seed=one) for one in seeds]
        outputs = self._run([row.prompt_ids for row in encoded], settings)
        self.on_progress(len(cases))
        return [
            [self._read(row, one, stop_ids) for one in sorted(output.outputs, key=lambda one: one.index)]
            for row, output in zip(encoded, outputs, strict=True)
        ]

    def _read(self, row: Encoded, output: Any, stop_ids: Sequence[int]) -> Completion:
        ids = list(output.token_ids)
        stopped = output.finish_reason == "stop"
        # Some versions leave the stop token out of the ids; it counts as a token here.
        n_tokens = len(ids) + (stopped and not (ids and ids[-1] in stop_ids))
        return Completion(decode(self.tokenizer, ids, stop_ids), n_tokens, stopped, row.n_words_cut, row.shown)

    def label_logprobs(self, contract: TaskContract, cases: Sequence[Case]) -> list[LabelScores]:
        """How likely each label is: the log-probabilities of its tokens, which vLLM tells of a prompt that ends in it.

        Raises ModelError where this version of vLLM does not tell them.
        """
        encoded = encode_all(contract, cases, self.tokenizer, with_target=False)
        labels: list[LabelIds] = encode_labels(contract, encoded, self.tokenizer)
        rows: list[list[int]] = []
        n_scored: list[int] = []
        for row, ids in zip(encoded, labels, strict=True):
            rows += [[*row.prompt_ids, *ids.forced, *label] for label in ids.labels]
            n_scored += [len(label) for label in ids.labels]
        self._check_length(rows, 1)
        # One token is the least that vLLM writes; it is not looked at.
        settings = self._vllm.SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=1, detokenize=False)
        outputs = self._run(rows, [settings] * len(rows))
        self.on_progress(len(cases))
        sums = [self._log_prob(output, row, n) for output, row, n in zip(outputs, rows, n_scored, strict=True)]
        scores, start = [], 0
        for row, ids in zip(encoded, labels, strict=True):
            scores.append(label_scores(contract.labels, sums[start : start + len(ids.labels)], row.n_words_cut))
            start += len(ids.labels)
        return scores

    def _log_prob(self, output: Any, ids: Sequence[int], n_scored: int) -> float:
        """Natural logarithm of the probability of the last `n_scored` tokens, each given all before it."""
        positions = output.prompt_logprobs
        if positions is None or len(positions) != len(ids):
            raise ModelError(
                f"vLLM {getattr(self._vllm, '__version__', '(version unknown)')} gives no log-probabilities of prompt "
                "tokens here, expected them: labels cannot be scored without. Take `evaluate.mode` generate, or ask "
                "without vllm:."
            )
        return sum(float(positions[i][ids[i]].logprob) for i in range(len(ids) - n_scored, len(ids)))

    def _run(self, rows: Sequence[Sequence[int]], settings: Sequence[Any]) -> list[Any]:
        if not rows:
            return []
        prompts = [{"prompt_token_ids": list(ids)} for ids in rows]
        return list(self._llm.generate(prompts, list(settings), use_tqdm=False, lora_request=self._adapter))

    def _check_length(self, rows: Sequence[Sequence[int]], n_new: int) -> None:
        check_context(SimpleNamespace(config=self._config), max(map(len, rows), default=0) + n_new)


def import_vllm() -> Any:
    """The module. Raises ConfigError where it is not installed."""
    try:
        import vllm
        import vllm.lora.request
    except ImportError as error:
        raise ConfigError(
            "asking by vLLM needs the `vllm` package, which cannot be imported "
            f"({error.name or type(error).__name__} is missing): pip install 'medjudge[vllm]' on a machine with a "
            "GPU; or leave out vllm: and `evaluate.engine`."
        ) from None
    return vllm


def _room_for(located: Located) -> int:
    import json

    rank = int(json.loads((located.folder / "adapter_config.json").read_text(encoding="utf-8"))["r"])
    room = 8
    while room < rank:
        room *= 2
    if room > LARGEST_RANK:
        raise ConfigError(
            f"the adapter {located.folder} has rank {rank}, and vLLM takes at most {LARGEST_RANK}: merge it first, or "
            "ask it without vllm:."
        )
    return room
