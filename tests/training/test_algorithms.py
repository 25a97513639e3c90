"""The table of algorithms: one for each name that a recipe can say, all called alike."""

from __future__ import annotations

import importlib
import inspect
from typing import get_args

from medjudge.settings.training import GrpoConfig
from medjudge.training.algorithms import ALGORITHMS


def test_every_algorithm_of_the_settings_stands_in_the_table() -> None:
    assert set(ALGORITHMS) == set(get_args(GrpoConfig.model_fields["algorithm"].annotation))


def test_all_are_called_alike() -> None:
    for name, algorithm in ALGORITHMS.items():
        function = getattr(importlib.import_module(algorithm.module), algorithm.function)
        assert list(inspect.signature(function).parameters) == ["job", "config", "rows", "beside"], name
