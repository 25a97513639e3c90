"""What a stage did, in sentences for the console, from the summary that its manifest keeps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any


def stage_sentence(name: str, summary: Mapping[str, Any]) -> str:
    """What a finished stage did. What a summary lacks is left out; an unknown stage lists its plain values."""
    parts = [part for part in (SENTENCES[name](summary) if name in SENTENCES else _plain(summary)) if part]
    return " ".join(f"{part[0].upper()}{part[1:]}." for part in parts)


def _prepare(summary: Mapping[str, Any]) -> list[str]:
    counts = [(split, facts["n_cases"]) for split, facts in summary.get("splits", {}).items()]
    cases = _listed([f"{n:,} {split}" for split, n in counts])
    unused = summary.get("n_unused") or 0
    n_findings = sum(sum(codes.values()) for codes in summary.get("lint", {}).values())
    return [
        f"{cases} cases" if cases else "",
        f"{_many(unused, 'case')} in no split" if unused else "",
        str(summary.get("leakage", "")).rstrip("."),
        f"{_many(n_findings, 'remark')} on the rows in prepare/lint.json" if n_findings else "",
    ]


def _base(summary: Mapping[str, Any]) -> list[str]:
    return [f"{_number(summary, 'n_parameters')} parameters, trained on {_many(summary.get('n_texts', 0), 'text')}"]


def _sft(summary: Mapping[str, Any]) -> list[str]:
    shortened = summary.get("n_prompts_shortened") or 0
    return [
        f"trained on {_many(summary.get('n_cases', 0), 'case')}, {_trained(summary)}",
        f"{_many(shortened, 'prompt')} lost {summary.get('n_words_cut', 0):,} words to `task.max_prompt_tokens`"
        if shortened
        else "",
    ]


def _grpo(summary: Mapping[str, Any]) -> list[str]:
    left_out = summary.get("n_cases_not_rewardable") or 0
    stopped, doctor = summary.get("stopped_step"), summary.get("doctor")
    failed = {key[: -len(" n_failed")]: n for key, n in summary.items() if key.endswith(" n_failed") and n}
    spent = {key[: -len(" usd")]: usd for key, usd in summary.items() if key.endswith(" usd") and usd is not None}
    return [
        f"trained on {_many(summary.get('n_cases', 0), 'case')}, {_trained(summary)}",
        f"{_many(left_out, 'case')} left out, which the rewards cannot pay" if left_out else "",
        f"pre-flight {summary['preflight']}" if "preflight" in summary else "",
        f"doctor: {doctor}" if doctor else "",
        f"stopped by the doctor at step {stopped:,}" if stopped is not None else "",
        *(f"{judge} failed on {_many(n, 'answer')}" for judge, n in failed.items()),
        *(f"{judge} cost {usd:.2f} USD" for judge, usd in spent.items()),
    ]


def _merge(summary: Mapping[str, Any]) -> list[str]:
    proof = summary.get("merge") or {}
    difference = proof.get("max_logit_difference")
    made = f"the model of {summary.get('from', 'the run')} in merge/model"
    return [made, f"its logits differ from the adapter's by at most {difference:.2g}" if difference is not None else ""]


def _evaluate(summary: Mapping[str, Any]) -> list[str]:
    accuracies = {key.removeprefix("accuracy "): v for key, v in summary.items() if key.startswith("accuracy ")}
    shown = [f"{name} {value:.1%}" for name, value in accuracies.items()]
    shortened = summary.get("n_prompts_shortened") or {}
    cut = max(shortened.values(), default=0) if isinstance(shortened, Mapping) else shortened
    return [
        f"{_many(summary.get('n_cases', 0), 'case')}, accuracy: {', '.join(shown)}",
        f"{_many(cut, 'prompt')} shortened to `task.max_prompt_tokens`" if cut else "",
    ]


def _report(summary: Mapping[str, Any]) -> list[str]:
    return [f"a page of {summary.get('n_bytes', 0) / 2**20:.1f} MiB"]


SENTENCES: dict[str, Callable[[Mapping[str, Any]], list[str]]] = {
    "prepare": _prepare,
    "base": _base,
    "sft": _sft,
    "grpo": _grpo,
    "merge": _merge,
    "evaluate": _evaluate,
    "report": _report,
}


def _trained(summary: Mapping[str, Any]) -> str:
    trainable, total = summary.get("trainable_parameters"), summary.get("parameters")
    if trainable is None or total is None:
        return "its parameters not counted"
    return f"all {total:,} parameters" if trainable == total else f"{trainable:,} of {total:,} parameters"


def _plain(summary: Mapping[str, Any]) -> list[str]:
    values = {k: v for k, v in summary.items() if isinstance(v, str | int | float) and not isinstance(v, bool)}
    return [
        f"{key.replace('_', ' ')} {value:,}" if isinstance(value, int) else f"{key.replace('_', ' ')} {value}"
        for key, value in values.items()
    ]


def _number(summary: Mapping[str, Any], key: str) -> str:
    value = summary.get(key)
    return f"{value:,}" if value is not None else "an unknown number of"


def _many(n: int, word: str) -> str:
    return f"{n:,} {word}" if n == 1 else f"{n:,} {word}s"


def _listed(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}" if parts else ""
