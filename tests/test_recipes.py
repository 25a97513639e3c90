"""Every recipe loads, with each of its profiles, and says what it was published with."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from medjudge.commands.init import recipe_text
from medjudge.data.sources import read_source
from medjudge.errors import ConfigError
from medjudge.recipe import DEMO_RECIPE, DEMO_TASKS, Recipe, demo_recipe, load_recipe, load_variants, recipe_from_tree
from medjudge.settings.model import SMOLLM_BASE
from medjudge.tasks.catalog import TASKS
from medjudge.tasks.citations import cited_ids, given_ids
from tests.shared_data import require_shared

RECIPES = sorted((Path(__file__).parent.parent / "recipes").glob("*.toml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_recipe_and_profiles_load(path: Path) -> None:
    load_variants(path)
    for profile in tomllib.loads(path.read_text(encoding="utf-8")).get("profiles", {}):
        recipe, variants = load_variants(path, [f"profile={profile}"])
        assert {one.profile for one in (recipe, *variants.values())} == {profile}


@pytest.mark.parametrize("kind", TASKS)
def test_init_writes_a_recipe_that_loads_to_the_defaults(kind: str) -> None:
    recipe = recipe_from_tree(tomllib.loads(recipe_text(kind)))
    assert recipe.model_copy(update={"data": recipe.data.model_copy(update={"source": None})}) == Recipe.model_validate(
        {"name": kind, "task": {"kind": kind, **TASKS[kind].needed}}
    )


def test_init_takes_labels_and_fields_where_a_task_has_them() -> None:
    settings = {"labels": ["low", "high"], "fields": ["finding"]}
    recipe = recipe_from_tree(tomllib.loads(recipe_text("classification", settings)))
    assert (recipe.contract.labels, recipe.contract.group_fields) == (("low", "high"), ("finding",))
    with pytest.raises(ConfigError, match=r"mcq has no setting fields.*leave --fields out"):
        recipe_text("mcq", settings)
    with pytest.raises(ConfigError, match="two or more"):
        recipe_text("classification", {"labels": ["low"]})


@pytest.mark.parametrize("kind", TASKS)
def test_init_shows_every_default_as_it_is(kind: str) -> None:
    """With every commented setting made active, the recipe still loads to the same."""
    text = recipe_text(kind)
    active = "\n".join(
        line.removeprefix("# ")
        if (line.startswith("# [") and line.endswith("]")) or (line.startswith("# ") and _is_setting(line))
        else line
        for line in text.splitlines()
    )
    assert recipe_from_tree(tomllib.loads(active)) == recipe_from_tree(tomllib.loads(text))


def _is_setting(line: str) -> bool:
    name, equals, value = line.removeprefix("# ").partition(" = ")
    return bool(equals and value and name.isidentifier())


def test_published_settings_of_the_medmcqa_pipeline() -> None:
    recipe = load_recipe(Path(__file__).parent.parent / "recipes" / "medmcqa.toml")
    assert recipe.model.base == "Qwen/Qwen3-0.6B"
    assert recipe.data.splits == {"train": (0, 1000), "grpo": (1000, 1500), "test": (1500, 1700)}
    assert (recipe.sft.max_steps, recipe.sft.completions_per_step, recipe.sft.learning_rate) == (800, 16, 2e-4)
    assert (recipe.grpo.prompts_per_step, recipe.grpo.group_size, recipe.grpo.completions_per_step) == (2, 4, 8)


def test_a_table_of_ratings_alone_gives_all_four_designs_what_they_compare_with() -> None:
    source = str(require_shared("data", "acr_appropriateness", "acr_appropriateness.jsonl.gz"))
    path = Path(__file__).parent.parent / "recipes" / "acr_rewards.toml"
    recipe, variants = load_variants(path, ["profile=table", f"data.source={source}"])
    assert {name: variant.data.source for name, variant in variants.items() if name != "judge"} == dict.fromkeys(
        ("baseline", "citations", "llm-eval", "embedding"), source
    )
    table = read_source(source, recipe.contract, recipe.data)
    told = [case for case in table.cases if case.reason is not None]
    assert (len(table.cases), len(told)) == (4000, 3968)  # the others state no radiation for adults
    for case in told[::100]:
        assert str(case.gold) in str(case.reason)
        assert cited_ids(str(case.reason)) == given_ids(case.inputs["evidence"]) == ("1",)


@pytest.mark.parametrize("task", DEMO_TASKS)
def test_the_demo_has_a_recipe_for_each_task(task: str, tmp_path: Path) -> None:
    recipe = demo_recipe(task, 42, tmp_path)
    assert (recipe.task.kind, recipe.model.base, recipe.runs_dir) == (task, SMOLLM_BASE, tmp_path)
    assert str(recipe.data.source).startswith("builtin:")
    assert demo_recipe(task, 42, tmp_path, ["grpo.max_steps=3"]).grpo.max_steps == 3
    other = demo_recipe(task, 7, tmp_path)
    assert (other.seed, other.name) == (7, f"{recipe.name}-seed7")
    assert demo_recipe(task, 42, tmp_path, ["seed=7"]) == other
    assert (other.data, other.sft, other.grpo) == (recipe.data, recipe.sft, recipe.grpo)


def test_a_demo_of_no_known_task_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--task is 'rubrik' \(did you mean `rubric`\?\)"):
        demo_recipe("rubrik", 42, tmp_path)


def test_the_demo_in_the_repository_is_the_one_in_the_package() -> None:
    (path,) = (path for path in RECIPES if path.stem == "demo")
    assert path.resolve() == DEMO_RECIPE.resolve()


BASE = {"name": "x", "task": {"kind": "mcq"}}


@pytest.mark.parametrize(
    ("tree", "overrides", "message"),
    [
        ({**BASE, "sftt": {}}, [], r"unknown key `sftt` \(did you mean `sft`\?\)"),
        ({**BASE, "task": {"kind": "mcq", "lenientt": True}}, [], r"`task.lenientt` \(did you mean `lenient`\?\)"),
        ({"name": "x", "task": {"kind": "mqc"}}, [], r"task.kind is 'mqc' \(did you mean `mcq`\?\)"),
        ({"name": "x"}, [], "`task` is missing"),
        (BASE, ["sft.lora.rank=3"], r"unknown key `sft.lora.rank`.*Expected one of alpha"),
        (BASE, ["sft.micro_batch=5"], "not a multiple of `micro_batch` = 5"),
        (BASE, ["grpo.rewards.acuracy=1"], r"unknown reward 'acuracy' \(did you mean `accuracy`\?\)"),
        (BASE, ["sft.epochs=many"], "valid number"),
        (BASE, ["profile=tiny"], "profile 'tiny' is not defined"),
        (BASE, ["sft"], "--set takes section.key=value"),
        (BASE, ["name.x=1"], "`name` is a value, expected a section"),
        ({**BASE, "profiles": {"p": {"sft": {"epoch": 1}}}}, [], r"\[profiles.p\]: unknown key `sft.epoch`"),
        (BASE, ["data.source=a", "data.train=b"], "one `source` to be split, or a source per split"),
        (BASE, ["data.splits={train=0.9, test=0.2}"], "add up to 1.1"),
        (BASE, ["data.splits={train=[0, 5], test=0.2}"], "mixes index ranges"),
        (BASE, ["grpo.group_size=1"], "greater than or equal to 2"),
        (BASE, ["name=../x"], "`name`"),
    ],
)
def test_wrong_recipes_are_refused_in_words(tree: dict[str, object], overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        recipe_from_tree(tree, overrides)


def test_naming_rows_by_split_takes_the_place_of_one_source_and_back() -> None:
    one = {**BASE, "data": {"source": "rows.jsonl"}}
    assert recipe_from_tree(one, ["data.train=a", "data.test=b"]).data.source is None
    two = {**BASE, "data": {"train": "a", "test": "b"}}
    recipe = recipe_from_tree(two, ["data.source=c"])
    assert (recipe.data.source, recipe.data.train, recipe.data.test) == ("c", None, None)


def test_command_line_wins_over_profile_and_profile_over_file() -> None:
    tree = {**BASE, "sft": {"epochs": 1.0, "micro_batch": 4}, "profiles": {"p": {"sft": {"epochs": 2.0}}}}
    assert recipe_from_tree(tree, ["profile=p"]).sft.epochs == 2.0
    recipe = recipe_from_tree(tree, ["profile=p", "sft.epochs=3"])
    assert (recipe.sft.epochs, recipe.sft.micro_batch) == (3.0, 4)
