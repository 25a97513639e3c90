"""A synthetic evaluation, such as the three stages of a run leave behind."""

import math

import numpy as np
import pytest

from medjudge.metrics.baselines import trivial_baselines
from medjudge.metrics.summary import AnalysisOptions, JudgeFacts, TrainingRows, summarise
from medjudge.records import Case, Unparsed, Verdict
from medjudge.reporting.inputs import ReportInputs, VerdictRow
from medjudge.tasks.appropriateness import AppropriatenessContract
from medjudge.tasks.mcq import McqContract


def answers(cases, labels, share_right, share_unparsed, seed):
    rng = np.random.default_rng(seed)
    said = []
    for case in cases:
        right, unparsed, other, confidence = rng.random(4)
        if unparsed < share_unparsed:
            kind = "format" if other < 0.8 else "schema"
            reason = (
                "the completion is not JSON"
                if kind == "format"
                else "confidence is a text, expected a number in [0, 1]"
            )
            said.append(Unparsed(case.case_id, "PATIENT TEXT in a completion", reason, kind=kind))
        else:
            label = case.gold if right < share_right else labels[int(other * len(labels))]
            said.append(Verdict(case.case_id, label, confidence=round(0.5 + confidence / 2, 2)))
    return said


def sha(letter):
    return (letter * 64)[:64]


LINEAGE = {
    "base": {"kind": "base", "stage": "base", "weights_sha256": sha("a1"), "base": "builtin:scratch", "ancestry": []},
    "sft": {
        "kind": "merged",
        "stage": "sft",
        "weights_sha256": sha("c3"),
        "base": "builtin:scratch",
        "recipe_sha256": sha("e5"),
        "data_sha256": sha("f6"),
        "contract_sha256": sha("07"),
        "merge": {"adapter_sha256": sha("b2"), "max_logit_difference": 3.1e-6},
        "ancestry": [
            {"stage": "base", "kind": "base", "name": "builtin:scratch", "weights_sha256": sha("a1")},
            {"stage": "sft", "kind": "adapter", "name": "adapter", "weights_sha256": sha("b2")},
        ],
    },
    "grpo": {
        "kind": "merged",
        "stage": "merge",
        "weights_sha256": sha("d9"),
        "base": "builtin:scratch",
        "merge": {"adapter_sha256": sha("d4"), "max_logit_difference": 4.5e-6},
        "ancestry": [
            {"stage": "base", "kind": "base", "name": "builtin:scratch", "weights_sha256": sha("a1")},
            {"stage": "sft", "kind": "adapter", "name": "adapter", "weights_sha256": sha("b2")},
            {"stage": "sft", "kind": "merged", "name": "/somewhere/sft/model", "weights_sha256": sha("c3")},
            {"stage": "grpo", "kind": "adapter", "name": "adapter", "weights_sha256": sha("d4")},
        ],
    },
}

LEAKAGE = {
    "comparisons": [
        {
            "train": "train",
            "held_out": "test",
            "n_train": 700,
            "n_held_out": 600,
            "enforced": True,
            "overlaps": {
                kind: {"n_cases": n}
                for kind, n in {"exact": 0, "normalised": 0, "near_duplicate": 2, "group": 0, "conflict": 0}.items()
            },
        }
    ],
    "n_leaks": 2,
    "summary_line": "Leakage: train vs test: 2 of 600 held-out cases leak (0.3%): near_duplicate 2.",
}


def histories():
    rng = np.random.default_rng(5)
    sft = [
        {"step": 5 * i, "loss": 2.5 * math.exp(-i / 20) + 0.4 + 0.05 * rng.random(), "grad_norm": 1 + rng.random()}
        for i in range(1, 101)
    ]
    sft += [{"step": 100 * i, "eval_loss": 2.4 * math.exp(-i) + 0.5} for i in range(1, 6)]
    sft.append({"step": 500, "train_loss": 0.9, "epoch": 3.0})
    grpo = [
        {
            "step": i,
            "loss": 0.02 * rng.standard_normal(),
            "reward": 0.6 + 0.6 * i / 60 + 0.1 * rng.standard_normal(),
            "rewards/correctness/mean": 0.2 + 0.5 * i / 60 + 0.1 * rng.standard_normal(),
            "rewards/format/mean": 0.45 + 0.05 * rng.random(),
            "frac_reward_zero_std": min(1.0, 0.2 + 0.5 * i / 60 + 0.05 * rng.random()),
            "completions/mean_length": 38 + rng.random(),
            "completions/clipped_ratio": 0.0,
            "kl": 0.001 * i,
            "entropy": 0.7 - 0.005 * i,
            "grad_norm": None if i == 3 else 0.5 + 0.2 * rng.random(),
        }
        for i in range(1, 61)
    ]
    base = [{"step": 10 * i, "loss": 7 - 0.05 * i} for i in range(1, 30)]
    return {"base": base, "sft": sft, "grpo": grpo}


def build_inputs(contract, rates, *, n=600, reference="base"):
    """rates: model -> (share right, share unparsed)."""
    rng = np.random.default_rng(0)
    labels = contract.labels
    shares = np.linspace(2, 1, len(labels))
    cases = [
        Case(
            f"variant-{i // 6:03d}/{i:04d}",
            {"text": f"word{rng.integers(9)} word{rng.integers(9)}"},
            gold=str(rng.choice(labels, p=shares / shares.sum())),
            group=f"g{i // 6}",
        )
        for i in range(n)
    ]
    said = {
        name: answers(cases, labels, right, unparsed, seed)
        for seed, (name, (right, unparsed)) in enumerate(rates.items(), 1)
    }
    baselines = trivial_baselines(
        cases[: n // 2], cases, labels=labels, positive=contract.positive, rng=np.random.default_rng(1)
    )
    results = summarise(
        cases,
        said,
        contract=contract,
        split="test",
        facts={name: JudgeFacts(LINEAGE.get(name), n_truncated=3) for name in said},
        baselines=baselines,
        training=TrainingRows(700, LEAKAGE),
        options=AnalysisOptions(reference=reference, n_resamples=500),
    )
    gold = {case.case_id: case.gold for case in cases}
    verdicts = {
        name: [
            VerdictRow(j.case_id, gold[j.case_id], None, reason=j.reason)
            if isinstance(j, Unparsed)
            else VerdictRow(j.case_id, gold[j.case_id], j.label, j.confidence)
            for j in judgements
        ]
        for name, judgements in said.items()
    }
    return ReportInputs(
        title="Imaging appropriateness with <tiny> weights & all",
        results=results,
        histories=histories(),
        verdicts=verdicts,
        recipe={"name": "demo", "sft": {"epochs": 3.0, "lora": {"r": 16}}, "stages": ["prepare", "base"]},
        commands=["medjudge run recipes/demo.toml", "medjudge report runs/demo"],
        versions={"medjudge": "0.1.0", "python": "3.11.9", "torch": "2.8.0"},
        lint={"duplicate options": 3, "field 'exp' is empty": 41},
        data={"train": {"cases": 700, "groups": 117}, "test": {"cases": n, "groups": n // 6, "without label": 0}},
        description="A synthetic run.",
        finished="2025-01-01 12:00 UTC",
        max_disagreements=20,
    )


@pytest.fixture(scope="session")
def report_inputs():
    rates = {"base": (0.0, 1.0), "sft": (0.45, 0.03), "grpo": (0.5, 0.0)}
    return build_inputs(AppropriatenessContract(), rates)


@pytest.fixture(scope="session")
def mcq_inputs():
    return build_inputs(McqContract(), {"base": (0.0, 0.9), "a-rather-long-model-name": (0.1, 0.1)})
