"""The single-task baseline."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pytest

from study.testing import Bench, MethodContract, same_bits
from trainables.errors import ConfigError
from trainables.methods import METHODS, MethodConfig


class TestSingleTask(MethodContract):
    task_counts: ClassVar[tuple[int, ...]] = (1,)

    @staticmethod
    def variants(tasks: int) -> dict[str, Mapping[str, Any]]:
        return {"plain": {"name": "single_task"}}


def test_is_gradient_descent_on_its_task() -> None:
    alone, plain = Bench("single_task", 1), Bench("gd", 1)
    alone.iterate(5)
    plain.iterate(5)
    assert same_bits(alone.bits(), plain.bits())


@pytest.mark.parametrize("tasks", [[], ["depth", "normal"]])
def test_refuses_any_other_number_of_tasks(tasks: list[str]) -> None:
    method = METHODS["single_task"]
    with pytest.raises(ConfigError, match=rf"^tasks\.include: 'single_task' trains one task, got {len(tasks)} \("):
        method.check(method.Config(name="single_task"), tasks)


@pytest.mark.parametrize("name", ["gd", "selective", "single_task"])
def test_registered_name_is_the_config_s(name: str) -> None:
    config = METHODS[name].Config
    assert issubclass(config, MethodConfig)
    assert config.model_fields["name"].default == name


def test_a_mistyped_method_is_answered_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"unknown method 'selectiv'; did you mean 'selective'\?"):
        METHODS["selectiv"]
