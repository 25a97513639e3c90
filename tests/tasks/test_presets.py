"""Rubrics by name, and from a file of one's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from medjudge.errors import ConfigError
from medjudge.recipe import recipe_from_tree
from medjudge.tasks.presets import presets, rubric_text
from medjudge.tasks.rubric import RubricContract

OWN = 'criteria = "Is it kind?"\n[rubric]\n0 = "curt"\n1 = "kind"\n'


def test_every_preset_makes_a_contract() -> None:
    assert {"faithfulness_binary", "correctness_5point", "harm_3point"} <= set(presets())
    for name, text in presets().items():
        contract = RubricContract(**text.task_settings())
        assert str(contract.points) in name or (contract.points == 2 and name.endswith("binary")), name


def test_a_rubric_of_ten_points(tmp_path: Path) -> None:
    path = tmp_path / "ten.toml"
    path.write_text('criteria = "c"\n[rubric]\n' + "".join(f'{n} = "level {n}"\n' for n in range(1, 11)))
    assert RubricContract(**rubric_text(str(path)).task_settings()).labels[-1] == "10"


def test_a_rubric_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "kind.toml"
    path.write_text(OWN)
    assert rubric_text(str(path)).task_settings() == {
        "points": 2,
        "criteria": "Is it kind?",
        "rubric": {"0": "curt", "1": "kind"},
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("criteria = ", "is not valid TOML"),
        ('[rubric]\n0 = "a"\n1 = "b"\n', "`criteria`: Field required"),
        (OWN + "tone = 1\n", "tone"),
        (
            'criteria = "c"\n[rubric]\n1 = "a"\n2 = "b"\n',
            r"\[rubric\] describes 1, 2, expected every score of one scale",
        ),
        ('criteria = "c"\n[rubric]\n', "describes no score"),
    ],
)
def test_what_is_no_rubric_is_told(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "own.toml"
    path.write_text(content)
    with pytest.raises(ConfigError, match=message):
        rubric_text(str(path))


def test_a_misspelt_name_finds_its_neighbour() -> None:
    with pytest.raises(ConfigError, match="did you mean `faithfulness_binary`"):
        rubric_text("faithfulnes_binary")


def test_a_recipe_names_a_preset() -> None:
    tree = {"name": "x", "task": {"kind": "rubric", "points": 5, "preset": "faithfulness_binary"}}
    contract = recipe_from_tree(tree).contract
    assert isinstance(contract, RubricContract)
    assert (contract.points, contract.labels) == (2, ("0", "1"))
    assert contract.criteria == presets()["faithfulness_binary"].criteria
    by_override = recipe_from_tree({"name": "x", "task": {"kind": "rubric"}}, ["task.preset=faithfulness_binary"])
    assert by_override.contract.fingerprint() == contract.fingerprint()
    with pytest.raises(ConfigError, match=r"`task\.preset` and `task\.criteria` both say what to judge"):
        recipe_from_tree({"name": "x", "task": {"kind": "rubric", "preset": "harm_3point", "criteria": "c"}})
