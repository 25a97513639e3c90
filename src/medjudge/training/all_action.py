"""The all-action policy gradient: GRPO's objective without sampling, for contracts that answer with the label alone.

The labels are the actions. With K labels the expected reward of a prompt s is a finite sum,

    J(s) = sum_y pi(y|s) r(s, y) + (1 - sum_y pi(y|s)) r_u(s),        pi(y|s) = prod_t pi(y_t | s, y_<t)

over the labels' whole completions, stop token included. The rest of the probability, the leak, goes to completions that
are no label and earns what an unreadable completion earns, r_u. The gradient is that of this sum, as in the all-actions
method (Sutton and Barto 2018, 2nd ed., section 13.3) and Mean Actor-Critic (Asadi et al. 2017, arXiv:1709.00503), where
the critic is the reward itself: an answer is one step, so its value is known. Against GRPO there is no sampling noise,
no group without variance and no baseline. `docs/rewards.md` derives it.

State estimator. A state is a prompt, and prompts are drawn from the data, not from the policy: the mean over a batch
of prompts is an unbiased estimate of the mean over the split. What Mean Actor-Critic leaves out, the policy's effect on
the distribution of states, is zero here.

Assumptions. (1) Every completion other than the labels' own token sequences earns r_u. A readable variant (white space,
another split into tokens) counts as leak, which pulls the policy to the spelling that SFT teaches. (2) Rewards depend
on prompt and label, not on the policy.

Degenerate cases. Where labels have next to no probability (a base model that was never shown the format) J is flat and
its gradient vanishes, as sampled GRPO's does, which never draws a label: run SFT first, or take `label_policy =
"renormalised"`, the policy pi(y|s) / sum_y' pi(y'|s), which learns labels from any start, but no format. Where all
labels of a prompt earn the same, the renormalised gradient is 0, and the other moves the leak alone. A deterministic
policy has gradient 0 in both, and no spread of rewards: `SPREAD_FLOOR` keeps their ratio at 0.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from datasets import Dataset
from peft import get_peft_model
from torch import Tensor
from transformers import PrinterCallback, Trainer, set_seed

from medjudge import artifacts
from medjudge.data.ratings import one_view_each
from medjudge.errors import DataError
from medjudge.inference.labels import (
    LabelTree,
    label_log_probs,
    label_log_probs_apart,
    label_log_probs_packed,
    read_cache,
)
from medjudge.inference.local import LocalEngine
from medjudge.inference.prefix import attention_of, common_prefix, why_not
from medjudge.inference.rollouts import MIN_PREFIX
from medjudge.models.adapters import lora_config
from medjudge.models.cpu_forward import CpuForward
from medjudge.models.load import check_context
from medjudge.records import Case, Completion, Rollout, Unparsed
from medjudge.rewards.composition import RewardPlan
from medjudge.settings.training import GrpoConfig
from medjudge.tasks.contract import TaskContract
from medjudge.tasks.encoding import Encoded, LabelIds, encode_labels, read_rollout
from medjudge.tasks.tokenizers import stop_token_ids
from medjudge.training.job import Beside, RewardedRows, Trained, TrainingJob
from medjudge.training.order import grpo_order
from medjudge.training.packed_sft import PROOF_ROWS, proven_forward
from medjudge.training.progress_callback import Watch, clean_history
from medjudge.training.totals import JudgeCounts, Totals
from medjudge.training.trl_arguments import all_action_arguments

log = logging.getLogger(__name__)

SPREAD_FLOOR = 1e-4
"""Added to the spread of rewards before dividing by it, as TRL does."""
LEAST_LEAK = 1e-6
"""Probabilities below this are float32's rounding of 1 - p, not a leak."""


def outcome_log_probs(log_probs: Tensor, *, renormalised: bool) -> Tensor:
    """(n, n_outcomes) log-probabilities of the policy's outcomes from those of the labels (n, n_labels).

    Renormalised: the labels, adding up to 1. Else the labels and, last, the leak.
    """
    if renormalised:
        return log_probs.log_softmax(-1)
    # Clamped before the log: 1 - sum may be below 0 in float32, and one nan would be the loss of the whole batch.
    leak = (1 - log_probs.exp().sum(-1, keepdim=True)).clamp(min=LEAST_LEAK)
    return torch.cat([log_probs, leak.log()], dim=-1)


def all_action_loss(
    outcomes: Tensor, rewards: Tensor, reference: Tensor | None, *, kl_coef: float, by_spread: bool
) -> Tensor:
    """-(expected reward) + kl_coef * KL(policy || reference), averaged over prompts: a scalar with gradients.

    outcomes: (n_prompts, n_outcomes) as `outcome_log_probs` gives them; rewards: of the same shape; reference: outcomes
    of the reference policy, without gradients, or None for no KL term. by_spread: divide each prompt's expected reward
    by the standard deviation of its rewards under the policy, held constant, which is what GRPO's scaling by the
    group's standard deviation becomes as groups grow. The KL is that of outcomes: at most the KL of whole completions.
    """
    probabilities = outcomes.exp()
    expected = (probabilities * rewards).sum(-1)
    if by_spread:
        # Detached: the spread scales the step, as that of a group does in GRPO, and is not itself to be optimised.
        weights = probabilities.detach()
        variance = (weights * (rewards - expected.detach()[:, None]) ** 2).sum(-1)
        expected = expected / (variance.sqrt() + SPREAD_FLOOR)
    loss = -expected
    if reference is not None:
        loss = loss + kl_coef * (probabilities * (outcomes - reference)).sum(-1)
    return loss.mean()


def outcome_rewards(
    contract: TaskContract,
    cases: Sequence[Case],
    encoded: Sequence[Encoded],
    label_ids: Sequence[LabelIds],
    tokenizer: Any,
    plan: RewardPlan,
) -> tuple[Tensor, dict[str, Tensor]]:
    """(totals, terms by name before weights), each (n_cases, n_labels + 1), the last column for the leak.

    Labels take the round trip of a sampled completion, tokens to text to parser to rewards, so an answer that the
    contract would not read earns nothing here either. The leak is an unreadable, empty completion.
    Raises DataError for a case that lacks the gold of a reward.
    """
    stop_ids = stop_token_ids(tokenizer)
    rollouts = []
    for case, prompt, ids in zip(cases, encoded, label_ids, strict=True):
        rollouts += [read_rollout(contract, case, row, tokenizer, stop_ids, prompt=prompt) for row in ids.labels]
        # Last of each case's rows: the column that `outcome_log_probs` keeps for the leak.
        rollouts.append(Rollout(case, Unparsed(case.case_id, "", "no label"), Completion("", 0, False)))
    scored = plan.score(rollouts)
    if lacking := [row.rollout.case.case_id for row in scored if row.total is None]:
        raise DataError(
            f"case {lacking[0]} has no gold that the rewards compare with, expected it on every case here: leave it "
            "out of this split."
        )
    shape = (len(cases), len(contract.labels) + 1)
    terms = {name: torch.tensor([row.terms[name] for row in scored]).view(shape) for name in plan.weights}
    return torch.tensor([row.total for row in scored]).view(shape), terms


def expected_rewards(
    contract: TaskContract,
    cases: Sequence[Case],
    encoded: Sequence[Encoded],
    label_ids: Sequence[LabelIds],
    tokenizer: Any,
    plan: RewardPlan,
) -> tuple[Tensor, dict[str, Tensor]]:
    """As `outcome_rewards`, every reward being its mean over the experts who rated the case.

    The mean is over raters, not over labels: with two of three for a label and a reward of 1 for the right one, that
    label earns 2/3 and the third expert's 1/3. A case without ratings earns by its label.
    """
    place = {case.case_id: at for at, case in enumerate(cases)}
    views = one_view_each(cases)
    at = [place[view.case_id] for view in views]
    totals, terms = outcome_rewards(
        contract,
        [view.case for view in views],
        [encoded[i] for i in at],
        [label_ids[i] for i in at],
        tokenizer,
        plan,
    )
    n_raters = torch.zeros(len(cases)).index_add(0, torch.tensor(at), torch.tensor([float(view.n) for view in views]))
    share = torch.tensor([view.n / float(n_raters[i]) for view, i in zip(views, at, strict=True)])

    def mean(values: Tensor) -> Tensor:
        weighted = values * share[:, None]
        return torch.zeros(len(cases), values.shape[1]).index_add(0, torch.tensor(at), weighted)

    return mean(totals), {name: mean(values) for name, values in terms.items()}


class AllActionTrainer(Trainer):  # type: ignore[misc]  # transformers ships no types
    """transformers' trainer on rows that name a case: everything else is known before the first step."""

    prompts: Sequence[Sequence[int]]
    trees: Sequence[LabelTree]
    golds: Tensor
    """(n_cases,) number of the expert's label."""
    rewards: Tensor
    """(n_cases, n_labels + 1), the last column for the leak."""
    terms: Mapping[str, Tensor]
    reference: Tensor | None
    """(n_cases, n_labels) log-probabilities under the reference policy."""
    grpo: GrpoConfig
    sums: dict[str, list[float]]
    forward: CpuForward | None = None
    """The pass for CPUs, where it is used."""

    def compute_loss(
        self, model: Any, inputs: Mapping[str, Tensor], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Tensor:
        """The loss of the named cases; what it is made of is kept for the log."""
        cases = inputs["case"].tolist()
        renormalised = self.grpo.label_policy == "renormalised"
        log_probs = self._log_probs(model, cases)
        outcomes = outcome_log_probs(log_probs, renormalised=renormalised)
        n_outcomes, device = outcomes.shape[1], outcomes.device
        reference = None
        if self.reference is not None:
            # Kept on the CPU as labels' log-probabilities: small, and either policy can be read from them.
            reference = outcome_log_probs(self.reference[cases].to(device), renormalised=renormalised)
        # Without a leak there is one outcome less: the last column is cut off.
        rewards = self.rewards[cases, :n_outcomes].to(device)
        loss = all_action_loss(
            outcomes,
            rewards,
            reference,
            kl_coef=self.grpo.kl_coef,
            by_spread=self.grpo.scale_rewards == "group",
        )
        self._note(cases, log_probs.detach(), outcomes.detach(), reference)
        return loss

    def _log_probs(self, model: Any, cases: Sequence[int]) -> Tensor:
        """(n, n_labels), by the trees that follow these prompts: one for all but with an odd chat template."""
        rows: list[Tensor] = [torch.empty(0)] * len(cases)
        for tree in dict.fromkeys(self.trees[case] for case in cases):
            places = [i for i, case in enumerate(cases) if self.trees[case] == tree]
            prompts = [self.prompts[cases[i]] for i in places]
            for i, row in zip(places, self._of_tree(model, prompts, tree), strict=True):
                # Back in the order of the batch, whatever order the trees were taken in.
                rows[i] = row
        return torch.stack(rows)

    def _of_tree(self, model: Any, prompts: Sequence[Sequence[int]], tree: LabelTree) -> Tensor:
        temperature = self.grpo.temperature
        if self.forward is not None:
            return label_log_probs_packed(self.forward, prompts, tree, temperature=temperature)
        longest = max(map(len, prompts)) + tree.n_tokens + 1
        # Each label is then a row of its own: slower, and right on every architecture.
        if why_not(model, longest) is not None:
            return label_log_probs_apart(model, prompts, tree, temperature=temperature)
        prefix = None
        if not self.args.activation_checkpointing:  # which forbids a cache
            n_prefix = common_prefix(prompts)
            prefix = read_cache(model, prompts[0][:n_prefix]) if n_prefix >= MIN_PREFIX else None
        return label_log_probs(model, prompts, tree, prefix=prefix, temperature=temperature)

    def _note(self, cases: Sequence[int], log_probs: Tensor, outcomes: Tensor, reference: Tensor | None) -> None:
        probabilities, n = outcomes.exp(), outcomes.shape[1]
        device = outcomes.device
        rewards = self.rewards[cases, :n].to(device)
        expected = (probabilities * rewards).sum(-1)
        spread = (probabilities * (rewards - expected[:, None]) ** 2).sum(-1).sqrt()
        noted = {
            "reward": expected,
            "reward_std": spread,
            "entropy": -(probabilities * outcomes).sum(-1),
            "accuracy": (log_probs.argmax(-1) == self.golds[cases].to(device)).float(),
            "leak": 1 - log_probs.exp().sum(-1),
        }
        for name, values in self.terms.items():
            noted[f"rewards/{name}/mean"] = (probabilities * values[cases, :n].to(device)).sum(-1)
        if reference is not None:
            noted["kl"] = (probabilities * (outcomes - reference)).sum(-1)
        for name, value in noted.items():
            self.sums.setdefault(name, []).append(float(value.mean()))

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds the means since the last entry."""
        # fsum: no rounding that grows with the steps between two entries.
        means = {name: math.fsum(values) / len(values) for name, values in self.sums.items()}
        self.sums.clear()
        super().log({**logs, **means}, start_time)


def train_all_action(job: TrainingJob, config: GrpoConfig, rows: RewardedRows, beside: Beside) -> Trained:
    """Trains on cases that have what the rewards need. Resumes from the last whole checkpoint of the job.

    The reference policy is the model as it is given. It judges each prompt once, before the first step, and no second
    model is kept. beside: not used, since there are no rollouts to watch.
    """
    contract, tokenizer, model, plan = job.contract, job.tokenizer, job.model, rows.plan
    order, steps = grpo_order(len(rows.cases), config, job.seed)
    check_context(model, max(len(row.prompt_ids) for row in rows.encoded) + contract.max_completion_tokens)
    prompts = [row.prompt_ids for row in rows.encoded]
    label_ids = encode_labels(contract, rows.encoded, tokenizer)
    trees = {ids: LabelTree.of(ids) for ids in set(label_ids)}
    rewards_of = expected_rewards if config.ratings == "expected" else outcome_rewards
    rewards, terms = rewards_of(contract, rows.cases, rows.encoded, label_ids, tokenizer, plan)
    checkpoint = artifacts.latest_checkpoint(job.work)
    watch = Watch("grpo", ("reward", "accuracy", "kl"))
    totals = Totals(checkpoint, JudgeCounts(job.work, plan.rewards))
    arguments = all_action_arguments(config, job.model_config, job.work, steps=steps, seed=job.seed)
    reference = _reference(job, rows.cases, sorted(set(order)), config, arguments) if config.kl_coef > 0 else None
    if config.tuning == "lora":
        set_seed(job.seed)  # an adapter begins with random weights
        model = get_peft_model(model, lora_config(config.lora))
        if arguments.activation_checkpointing:
            model.enable_input_require_grads()
    trainer = AllActionTrainer(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_dict({"case": _short_to_long_within_steps(order, prompts, config.prompts_per_step)}),
        data_collator=lambda rows: {"case": torch.tensor([row["case"] for row in rows])},
        callbacks=[totals, watch],
    )
    trainer.prompts, trainer.trees, trainer.grpo, trainer.sums = prompts, [trees[ids] for ids in label_ids], config, {}
    trainer.golds = torch.tensor([contract.labels.index(str(case.gold)) for case in rows.cases])
    trainer.rewards, trainer.terms, trainer.reference = rewards, terms, reference
    trainer.forward = proven_forward(
        trainer.model, job.model_config, arguments, prompts[:PROOF_ROWS], lambda line: log.info("grpo: %s", line)
    )
    totals.trainer = trainer
    trainer.remove_callback(PrinterCallback)
    try:
        with attention_of(model, "sdpa"):  # in the backward pass too, which recomputes layers where checkpointed
            trainer.train(resume_from_checkpoint=checkpoint)
    finally:
        watch.close()
    return Trained(trainer.model, clean_history(trainer.state.log_history))


def _reference(
    job: TrainingJob, cases: Sequence[Case], used: Sequence[int], config: GrpoConfig, arguments: Any
) -> Tensor:
    """(n_cases, n_labels) log-probabilities before training; nan for cases that training does not use."""
    contract, model = job.contract, job.model
    # nan, not 0: a case that is used without a reference shows at once in the loss.
    reference = torch.full((len(cases), len(contract.labels)), math.nan)
    device = model.get_input_embeddings().weight.device
    dtype = torch.bfloat16 if arguments.bf16 else torch.float16
    # As the policy will be computed: a reference in another precision would be a KL of rounding.
    with torch.autocast(device.type, dtype, enabled=arguments.bf16 or arguments.fp16):
        scores = LocalEngine(model, job.tokenizer).label_logprobs(
            contract, [cases[i] for i in used], temperature=config.temperature
        )
    reference[list(used)] = torch.tensor([[one.log_probs[label] for label in contract.labels] for one in scores])
    return reference


def _short_to_long_within_steps(order: Sequence[int], prompts: Sequence[Sequence[int]], per_step: int) -> list[int]:
    """Each optimiser step's cases by length: the same gradient, with less padding where a step is split."""
    steps = [order[i : i + per_step] for i in range(0, len(order), per_step)]
    return [case for step in steps for case in sorted(step, key=lambda case: len(prompts[case]))]
