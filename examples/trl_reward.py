"""The rewards of a medjudge task in your own TRL script: stock GRPOTrainer, our contract, prompts and rewards."""

import sys
from pathlib import Path

from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer

from medjudge import load_cases
from medjudge.models.load import load_tokenizer, load_weights, resolve
from medjudge.records import Judgement, Unparsed, Verdict
from medjudge.rewards.composition import RewardContext, build_plan
from medjudge.settings.model import ModelConfig
from medjudge.tasks.encoding import encode_all
from medjudge.tasks.equivalence import EquivalenceContract
from medjudge.training.grpo import Rewarder

BASE = "builtin:smollm2-135m"
ASK = "Does the candidate answer say the same as the ground truth answer? Begin with Yes or No, and a comma."


class YesOrNo(EquivalenceContract):
    """The equivalence task with the answer in words, as an untrained model gives it."""

    def parse(self, case_id: str, completion: str) -> Judgement:
        """`Yes, ..` is label 1, `No, ..` is label 0."""
        word = completion.partition(",")[0]
        if word not in ("Yes", "No"):
            return Unparsed(case_id, completion, "expected an answer that begins with Yes or No")
        return Verdict(case_id, "1" if word == "Yes" else "0")


def main(out: Path) -> None:
    """Two steps of GRPO on eight answers; prints what each reward paid on average."""
    contract = YesOrNo(system_prompt=ASK, max_completion_tokens=12)
    cases = load_cases("builtin:equivalence", contract)[:8]
    folder, config = resolve(BASE), ModelConfig(base=BASE, dtype="float32", device="cpu")
    tokenizer = load_tokenizer(folder)
    model = load_weights(folder, config, tokenizer, train_all=True)

    # The prompts as medjudge's SFT and evaluation write them; `case_id` leads each completion back to its expert label.
    prompts = encode_all(contract, cases, tokenizer, with_target=False)
    rows = [{"prompt": row.prompt_text, "case_id": case.case_id} for row, case in zip(prompts, cases, strict=True)]

    # Any reward of docs/rewards.md by its name, and its weight; one reward function of TRL for each.
    plan = build_plan({"accuracy": 1.0, "schema": 0.5}, (), RewardContext(contract, cases))
    rewarder = Rewarder(contract, cases, prompts, tokenizer, plan)

    trainer = GRPOTrainer(
        model=model,
        processing_class=tokenizer,
        reward_funcs=rewarder.functions(),
        train_dataset=Dataset.from_list(rows),
        args=GRPOConfig(
            output_dir=str(out),
            reward_weights=list(plan.weights.values()),
            max_steps=2,
            gradient_checkpointing=False,
            num_generations=4,
            per_device_train_batch_size=16,
            max_completion_length=contract.max_completion_tokens,
            learning_rate=1e-5,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            use_cpu=True,
            bf16=False,
            disable_tqdm=True,
            seed=42,
        ),
    )
    trainer.train()
    for step in [entry for entry in trainer.state.log_history if "reward" in entry]:
        paid = ", ".join(f"{name} {step[f'rewards/{name}/mean']:.2f}" for name in plan.weights)
        print(f"step {step['step']}: reward {step['reward']:.2f} of {plan.maximum:.1f} ({paid})")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "trl-output"))
