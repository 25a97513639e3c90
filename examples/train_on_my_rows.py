"""Train a judge on your own rows: a CSV, a recipe of twenty lines, SFT and GRPO on the built-in base model.

The rows here are synthetic; put your file and its columns in their place. A few steps teach the answer's form, not
medicine: for that leave `max_steps` away, and take more rows and, where you can, a larger base (`model.base`).
"""

import csv
import json
import subprocess
import sys
from pathlib import Path

RECIPE = """
name = "mine"
runs_dir = "{runs}"

[task]
kind = "equivalence"
system_prompt = ""
max_completion_tokens = 4

[data]
source = "{rows}"
fields = {{ reference = "expert", candidate = "answer", label = "same" }}   # contract field = column of the file
group_by = ["fact"]                                    # what belongs together stays on one side of a split

[model]
base = "builtin:smollm2-135m"

[sft]
max_steps = 14
completions_per_step = 8
learning_rate = 2e-3

[grpo]
max_steps = 2
group_size = 4
prompts_per_step = 4
rewards = {{ accuracy = 1.0, format = 0.5 }}
"""


def write_rows(path: Path) -> Path:
    """160 synthetic rows as a CSV with columns of its own; yours takes its place."""
    command = [sys.executable, "-m", "medjudge", "data", "build", "equivalence", "--n", "160"]
    subprocess.run([*command, "--out", str(path.with_suffix(".jsonl"))], check=True, stdout=subprocess.DEVNULL)
    rows = [json.loads(line) for line in path.with_suffix(".jsonl").read_text(encoding="utf-8").splitlines()]
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["fact", "question", "expert", "answer", "same"])
        table.writerows(
            [row[key] for key in ("fact_id", "question", "reference", "candidate", "label")] for row in rows
        )
    return path


def main(out: Path) -> None:
    """Writes rows, recipe and run into `out`; prints accuracy before, between and after the two trainings."""
    out.mkdir(parents=True, exist_ok=True)
    rows = write_rows(out / "rows.csv")
    recipe = out / "mine.toml"
    recipe.write_text(RECIPE.format(runs=(out / "runs").as_posix(), rows=rows.as_posix()), encoding="utf-8")
    command = [sys.executable, "-m", "medjudge", "run", str(recipe)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    results = json.loads((out / "runs" / "mine" / "evaluate" / "results.json").read_text(encoding="utf-8"))
    for name in ("base", "sft", "grpo"):
        model = results["models"][name]
        accuracy = model["metrics"]["accuracy"]
        interval = f"{accuracy['value']:.2f} ({accuracy['low']:.2f} to {accuracy['high']:.2f})"
        print(f"{name:>4}: {model['n'] - model['n_unparsed']} of {model['n']} answers readable, accuracy {interval}")
    print("judge:", (out / "runs" / "mine" / "merge" / "model").relative_to(out))


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "trained"))
