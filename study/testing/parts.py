"""What task sets, clusterers and backbones owe."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from study.testing.methods import same_bits
from trainables.cuts import CutGraph, cut_after
from trainables.data import DATA_SETS
from trainables.data.base import DataConfig
from trainables.errors import ConfigError
from trainables.methods.selective import CLUSTERERS
from trainables.methods.selective.partition import tidy
from trainables.models import BACKBONES, Backbone
from trainables.settings import component
from trainables.task_sets import TASK_SETS, TasksConfig, make_tasks
from trainables.tasks import Task


class TaskSetContract:
    """The contract of every task set: inherit, and set ``name`` and a data set that is built on this machine.

    Losses and metrics take the data set's labels, training towards a label improves the task's metric, and tasks travel
    between processes.
    """

    name: ClassVar[str]
    """As registered."""
    data: ClassVar[Mapping[str, Any]] = {"name": "scenes", "image_size": 32, "train": 3, "val": 1, "test": 1}
    """Config of a small data set with the labels of all tasks."""

    @pytest.fixture(scope="class")
    @classmethod
    def labels(cls, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
        """Every label of a batch of the data set."""
        config: DataConfig = component(DATA_SETS, cls.data, "data")
        data_set = DATA_SETS[config.name]
        root = tmp_path_factory.mktemp(cls.name)
        data_set.prepare(config, root)
        return data_set.open(config, root, "train").batch(np.arange(3), data_set.labels)[1]

    def tasks(self) -> tuple[Task, ...]:
        """The tasks, on the data set's classes."""
        return make_tasks(TasksConfig(set=self.name), DATA_SETS[self.data["name"]].classes)

    def test_tasks_have_their_names_and_labels_of_the_data_set(self) -> None:
        assert [task.name for task in self.tasks()] == list(TASK_SETS[self.name])
        assert {task.label for task in self.tasks()} <= set(DATA_SETS[self.data["name"]].labels)
        assert len({task.short for task in self.tasks()}) == len(self.tasks())

    def test_training_towards_a_label_improves_the_metric(self, labels: Mapping[str, Tensor]) -> None:
        for task in self.tasks():
            target = labels[task.label]
            generator = torch.Generator().manual_seed(0)
            shape = (len(target), task.channels, *target.shape[-2:])
            x = torch.randn(shape, generator=generator).requires_grad_()
            optimizer = torch.optim.Adam([x], lr=0.2)
            values = []
            for steps in (0, 20):
                for _ in range(steps):
                    optimizer.zero_grad()
                    loss = task.loss(x, target)
                    assert loss.shape == ()
                    loss.backward()
                    optimizer.step()
                metric = task.make_metric()
                metric.update(x.detach(), target)
                values.append(metric.compute())
            assert bool(torch.tensor(values).isfinite().all()), task.name
            assert values[0] != values[1], task.name
            assert (values[1] > values[0]) == task.higher_is_better, task.name

    def test_metrics_of_parts_merge_to_that_of_the_whole(self, labels: Mapping[str, Tensor]) -> None:
        for task in self.tasks():
            target = labels[task.label]
            x = torch.randn(len(target), task.channels, *target.shape[-2:], generator=torch.Generator().manual_seed(1))
            whole, first, second = (task.make_metric() for _ in range(3))
            whole.update(x, target)
            first.update(x[:1], target[:1])
            second.update(x[1:], target[1:])
            first.merge(second)
            assert first.compute() == pytest.approx(whole.compute(), rel=1e-9), task.name

    def test_tasks_travel_between_processes(self) -> None:
        assert [task.name for task in pickle.loads(pickle.dumps(self.tasks()))] == list(TASK_SETS[self.name])

    def test_the_config_survives_plain_data(self) -> None:
        for config in (
            TasksConfig(set=self.name),
            TasksConfig(set=self.name, include=(next(iter(TASK_SETS[self.name])),)),
        ):
            assert TasksConfig.parse(config.to_dict()) == config
            assert TasksConfig.parse(config.canonical()) == config


class ClustererContract:
    """The contract of every clusterer: inherit, set ``name``, and ``forms`` where its config has fields.

    Groups are tidy and cover every task once, or there are none; the same map gives the same groups and stays as it is.
    """

    name: ClassVar[str]
    """As registered."""
    forms: ClassVar[tuple[Mapping[str, Any], ...]] = ({},)
    """Fields of the configs that are tested."""

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """One test for each form and number of tasks."""
        if {"form", "tasks"} <= set(metafunc.fixturenames):
            metafunc.parametrize(("form", "tasks"), [(form, tasks) for form in self.forms for tasks in (1, 2, 3, 7)])

    def maps(self, tasks: int) -> list[Tensor]:
        """(K, K) random, one-sided, constant and extreme ones."""
        generator = torch.Generator().manual_seed(tasks)
        some = [torch.randn(tasks, tasks, dtype=torch.float64, generator=generator) for _ in range(5)]
        zero = torch.zeros(tasks, tasks, dtype=torch.float64)
        return [*some, some[0].abs(), -some[0].abs(), zero, zero + 1, zero - 1, some[1] * 1e150, some[1] * 1e-150]

    def test_groups_cover_every_task_once(self, form: Mapping[str, Any], tasks: int) -> None:
        config = component(CLUSTERERS, {"name": self.name, **form}, "clusterer")
        for affinity in self.maps(tasks):
            before = affinity.clone()
            groups = CLUSTERERS[self.name](config)(affinity)
            assert torch.equal(affinity, before)
            assert groups == CLUSTERERS[self.name](config)(affinity)
            if groups is not None:
                assert groups == tidy(groups)
                assert sorted(index for group in groups for index in group) == list(range(tasks))

    def test_the_config_survives_plain_data(self, form: Mapping[str, Any], tasks: int) -> None:
        config = component(CLUSTERERS, {"name": self.name, **form}, "clusterer")
        assert component(CLUSTERERS, config.to_dict(), "clusterer") == config
        assert component(CLUSTERERS, config.canonical(), "clusterer") == config


class BackboneContract:
    """The contract of every backbone: inherit, and set ``name`` and ``shape``; ``wrong`` where a shape is refused.

    It has the parameters and features it announces, all of them are trained, equal seeds build equal trunks, what it
    makes of a sample does not depend on the batch, and its graph, cut at its stages, gives the gradients of the whole.
    """

    name: ClassVar[str]
    """As registered."""
    shape: ClassVar[tuple[int, int]]
    """Of one input: (H, W) of an image; (atoms, numbers of an atom) of a molecule."""
    wrong: ClassVar[tuple[int, int] | None] = None
    """A shape that it cannot take."""

    def inputs(self, count: int) -> Tensor:
        """A batch of inputs: random images."""
        return torch.randn(count, 3, *self.shape, generator=torch.Generator().manual_seed(count))

    @property
    def backbone(self) -> Backbone:
        """What is under test."""
        return BACKBONES[self.name]

    def built(self, seed: int = 0, drop_path: float = 0.0) -> torch.nn.Module:
        """A trunk whose weights are drawn by a seed."""
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return self.backbone.build(self.shape, drop_path)

    def test_it_has_the_parameters_it_announces(self) -> None:
        assert sum(p.numel() for p in self.built().parameters()) == self.backbone.parameter_count(self.shape)
        assert self.backbone.operations(self.shape) > 0
        assert "\n" not in self.backbone.about

    def test_features_have_the_shape_announced_and_train_every_parameter(self) -> None:
        trunk = self.built()
        features = self.backbone.features(trunk, self.inputs(2), self.shape)
        assert features.shape == (2, self.backbone.feature_channels, *self.backbone.grid(self.shape))
        weights = torch.randn(features.shape, generator=torch.Generator().manual_seed(0))
        (features * weights).sum().backward()
        for name, parameter in trunk.named_parameters():
            assert parameter.grad is not None, name
            assert bool(parameter.grad.isfinite().all()), name
        predictions = self.backbone.upsample(self.shape)(features.detach())
        assert predictions.shape[:2] == features.shape[:2]

    def test_its_stages_give_the_gradients_of_the_whole_graph(self) -> None:
        trunk = self.built()
        parameters, stages = list(trunk.parameters()), self.backbone.stages(trunk)
        whole = self.backbone.features(trunk, self.inputs(2), self.shape)
        with cut_after(stages) as cuts:
            features = self.backbone.features(trunk, self.inputs(2), self.shape)
        assert torch.equal(features, whole)
        graph = CutGraph(features, cuts, parameters)
        assert len(graph.segments) == len(stages) + 1
        assert sorted(place for part in graph.segments for place in part.parameters) == list(range(len(parameters)))
        at_features = torch.randn(features.shape, generator=torch.Generator().manual_seed(0))
        wanted = torch.autograd.grad(whole, parameters, at_features)
        for segment, rows in graph.back([at_features], again=False):
            for found in rows:
                for place, gradient in zip(segment.parameters, found, strict=True):
                    assert gradient is not None
                    torch.testing.assert_close(gradient, wanted[place], rtol=1e-4, atol=1e-5)

    def test_equal_seeds_build_equal_trunks(self) -> None:
        def bits(seed: int) -> list[Tensor]:
            return [parameter.detach() for parameter in self.built(seed, 0.1).parameters()]

        assert same_bits(bits(3), bits(3))
        assert not same_bits(bits(3), bits(4))

    def test_a_sample_does_not_depend_on_the_batch(self) -> None:
        trunk, inputs = self.built(drop_path=0.5).eval(), self.inputs(3)
        with torch.no_grad():
            together = self.backbone.features(trunk, inputs, self.shape)
            for index in range(3):
                alone = self.backbone.features(trunk, inputs[index : index + 1], self.shape)
                torch.testing.assert_close(alone[0], together[index], rtol=1e-4, atol=1e-5)

    def test_a_shape_it_cannot_take_is_refused(self) -> None:
        if self.wrong is not None:
            with pytest.raises(ConfigError, match=self.name):
                self.backbone.grid(self.wrong)
