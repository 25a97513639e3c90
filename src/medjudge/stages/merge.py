"""One model out of adapter and parent, proven by logits: `medjudge run RECIPE --from merge --until merge`."""

from __future__ import annotations

from typing import Any

from rich.markup import escape

from medjudge import artifacts
from medjudge.errors import ConfigError, LineageError
from medjudge.models.lineage import copy_model, merge_adapter, read_lineage
from medjudge.models.load import load_tokenizer, quiet_libraries
from medjudge.models.merge_proof import proof_sentences
from medjudge.runs.model_paths import last_trained, training_split
from medjudge.runs.stages import StageContext
from medjudge.training.save import proof_prompts


def run(context: StageContext) -> dict[str, Any]:
    """Writes `model/`: the last trained adapter merged into its parent, or the fully tuned model as it is."""
    quiet_libraries()
    recipe = context.recipe
    stage = last_trained(recipe)
    if stage is None:
        raise ConfigError("`stages` has merge, but no stage that trains, such as sft: there is nothing to merge.")
    trained = context.run_dir.stage(stage)
    adapter, whole, out = trained / artifacts.ADAPTER, trained / artifacts.MODEL, context.out_dir / artifacts.MODEL
    if whole.exists():  # fully tuned, or SFT's adapter, which SFT merged and proved itself
        copy_model(whole, out)
        lineage = read_lineage(whole)
        if lineage is None:
            raise LineageError(f"{whole} has no {artifacts.LINEAGE}: train it again.")
        lineage.write(out)
    else:
        train = context.run_dir.split(training_split(recipe)).read()
        lineage = merge_adapter(
            adapter,
            out,
            recipe.model,
            stage="merge",
            prompts=proof_prompts(recipe, train, load_tokenizer(adapter, recipe.model.chat_template)),
            max_logit_difference=recipe.merge.max_logit_difference,
        )
    for sentence in proof_sentences(lineage.merge or {}):
        context.console.print(f"          {escape(sentence)}")
    return {
        "from": stage,
        "weights_sha256": lineage.weights_sha256,
        "merge": dict(lineage.merge) if lineage.merge else None,
    }
