"""Build `builtin:scratch` from nothing on the training split's text: `medjudge run RECIPE --from base --until base`.

What it reads are the fields of the prompts and the experts' explanations, as plain text: no labels, no answer format.
"""

from __future__ import annotations

from typing import Any

from medjudge import artifacts
from medjudge.models.lineage import Lineage, weights_sha256
from medjudge.models.load import count_parameters, quiet_libraries
from medjudge.models.scratch import build_tokenizer, format_texts, plain_texts
from medjudge.runs.model_paths import training_split
from medjudge.runs.stages import StageContext
from medjudge.settings.model import SCRATCH_BASE
from medjudge.training.language_model import build_model, train_language_model


def run(context: StageContext) -> dict[str, Any]:
    """Trains tokenizer and language model. Writes `model/` and `history.json`."""
    quiet_libraries()
    recipe, out_dir = context.recipe, context.out_dir
    cases = context.run_dir.split(training_split(recipe)).read()
    texts = plain_texts(cases)
    tokenizer = build_tokenizer([*texts, *format_texts(recipe.contract, cases)], recipe.base.vocab_size)
    model = build_model(recipe.base, tokenizer, recipe.seed)
    history = train_language_model(texts, model, tokenizer, recipe.base, recipe.model, out_dir, seed=recipe.seed)
    folder = out_dir / artifacts.MODEL
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    digest = weights_sha256(folder)
    Lineage(kind="base", stage="base", weights_sha256=digest, base=SCRATCH_BASE).write(folder)
    artifacts.write_json(out_dir / artifacts.HISTORY, history)
    return {"n_texts": len(texts), "n_parameters": count_parameters(model)[1], "weights_sha256": digest}
