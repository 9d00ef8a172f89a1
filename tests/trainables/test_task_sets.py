from __future__ import annotations

import pickle

import pytest
import torch
from pydantic import ValidationError

from trainables.errors import ConfigError
from trainables.task_sets import TASK_SETS, TasksConfig, make_tasks, task_names

CLASSES = {"semseg": 13, "human_parts": 7, "saliency": 2}

# As the published tables have them: dataset, task, metric, higher is better, abbreviation.
PUBLISHED = {
    "taskonomy": [
        ("depth_euclidean", "l1", False, "DE"),
        ("depth_zbuffer", "l1", False, "DZ"),
        ("edge_occlusion", "l1", False, "EO"),
        ("edge_texture", "l1", False, "ET"),
        ("keypoints2d", "l1", False, "K2"),
        ("keypoints3d", "l1", False, "K3"),
        ("normal", "l1", False, "N"),
        ("principal_curvature", "rmse", False, "C"),
        ("reshading", "l1", False, "R"),
        ("segment_unsup2d", "l1", False, "S2"),
        ("segment_unsup25d", "l1", False, "S2.5"),
    ],
    "nyud": [
        ("semseg", "miou", True, "Semseg"),
        ("depth", "rmse", False, "Depth"),
        ("normals", "mean_angular_error", False, "Normal"),
        ("edge", "odsf", True, "Edge"),
    ],
    "pascal_context": [
        ("semseg", "miou", True, "Semseg"),
        ("human_parts", "miou", True, "Parsing"),
        ("saliency", "maxf", True, "Saliency"),
        ("normals", "mean_angular_error", False, "Normal"),
        ("edge", "odsf", True, "Edge"),
    ],
    "qm9": [
        ("mu", "mae", False, "mu"),
        ("alpha", "mae", False, "alpha"),
        ("homo", "mae", False, "HOMO"),
        ("lumo", "mae", False, "LUMO"),
        ("r2", "mae", False, "R2"),
        ("zpve", "mae", False, "ZPVE"),
        ("u0", "mae", False, "U0"),
        ("u", "mae", False, "U"),
        ("h", "mae", False, "H"),
        ("g", "mae", False, "G"),
        ("cv", "mae", False, "Cv"),
    ],
    "nyuv2": [
        ("semseg", "miou", True, "Semseg"),
        ("depth", "abs_err", False, "Depth"),
        ("normal", "mean_angular_error", False, "Normal"),
    ],
    "cityscapes": [
        ("semseg", "miou", True, "Semseg"),
        ("depth", "abs_err", False, "Depth"),
    ],
}

# How many channels each label has, 0 for class labels.
LABELS = {
    **{name: 2 for name, *_ in PUBLISHED["qm9"]},
    "normal": 3,
    "principal_curvature": 2,
    "reshading": 3,
    "semseg": 0,
    "human_parts": 0,
    "saliency": 0,
}

every_set = pytest.mark.parametrize("name", PUBLISHED)


def random_label(label, generator):
    """A label as a data set gives it, (4, ...) of 16 x 24 pixels."""
    channels = LABELS.get(label, 1)
    if not channels:
        return torch.randint(0, CLASSES[label], (4, 16, 24), generator=generator)
    dense = torch.randn(4, channels, 16, 24, generator=generator)
    if label == "normal":
        return torch.nn.functional.normalize(dense, dim=1)
    if label == "edge":
        return (dense > 1).float()
    return dense.abs()


def by_name(**fields):
    return {task.name: task for task in make_tasks(TasksConfig(**fields), CLASSES)}


class TestTaskSets:
    def test_sets_are_the_published_ones(self):
        assert set(TASK_SETS) == set(PUBLISHED)

    @every_set
    def test_tasks_are_the_published_ones_in_their_order(self, name):
        tasks = make_tasks(TasksConfig(set=name), CLASSES)
        assert [(t.name, t.metric, t.higher_is_better, t.short) for t in tasks] == PUBLISHED[name]

    def test_further_metrics_stand_beside_the_one_that_counts(self):
        angles = ["median_angular_error", "within_11.25", "within_22.5", "within_30"]
        further = {task.name: list(task.make_metrics())[1:] for task in make_tasks(TasksConfig(set="nyuv2"), CLASSES)}
        assert further == {"semseg": ["pixel_accuracy"], "depth": ["rel_err"], "normal": angles}
        assert list(by_name(set="nyud")["depth"].make_metrics()) == ["rmse", "abs_err", "rel_err"]
        assert list(by_name(set="nyud")["edge"].make_metrics()) == ["odsf"]
        for name in TASK_SETS:
            for task in make_tasks(TasksConfig(set=name), CLASSES):
                made = task.make_metrics()
                assert next(iter(made)) == task.metric
                assert len(made) == 1 + len(task.further)
        assert not any(task.further for task in make_tasks(TasksConfig(set="taskonomy"), CLASSES))

    @every_set
    def test_losses_and_metrics_fit_the_labels(self, name):
        generator = torch.Generator().manual_seed(0)
        for task in make_tasks(TasksConfig(set=name), CLASSES):
            target = random_label(task.label, generator)
            x = torch.randn(4, task.channels, 16, 24, generator=generator).requires_grad_()
            loss = task.loss(x, target)
            loss.backward()
            assert torch.isfinite(loss)
            assert x.grad.abs().sum() > 0
            for metric_name, metric in task.make_metrics().items():
                metric.update(x, target)
                assert torch.isfinite(torch.tensor(metric.compute())), (task.name, metric_name)

    @every_set
    def test_training_towards_the_label_improves_the_metric(self, name):
        generator = torch.Generator().manual_seed(0)
        for task in make_tasks(TasksConfig(set=name), CLASSES):
            target = random_label(task.label, generator)
            x = torch.randn(4, task.channels, 16, 24, generator=generator).requires_grad_()
            optimizer = torch.optim.Adam([x], lr=0.2)
            higher = {task.metric: task.higher_is_better, **{m.name: m.higher_is_better for m in task.further}}
            values = []
            for _ in range(2):
                made = task.make_metrics()
                for metric in made.values():
                    metric.update(x, target)
                values.append({metric_name: metric.compute() for metric_name, metric in made.items()})
                for _ in range(20):
                    optimizer.zero_grad()
                    task.loss(x, target).backward()
                    optimizer.step()
            for metric_name, upward in higher.items():
                before, after = (value[metric_name] for value in values)
                assert before != after, (task.name, metric_name)
                assert (after > before) == upward, (task.name, metric_name)

    @every_set
    def test_tasks_travel_between_processes(self, name):
        tasks = make_tasks(TasksConfig(set=name), CLASSES)
        assert pickle.loads(pickle.dumps(tasks)) is not tasks
        assert [t.name for t in pickle.loads(pickle.dumps(tasks))] == [t.name for t in tasks]

    @every_set
    def test_metrics_are_fresh_each_time(self, name):
        for task in make_tasks(TasksConfig(set=name), CLASSES):
            assert task.make_metric() is not task.make_metric()

    def test_class_counts_come_from_the_data_set(self):
        tasks = {t.name: t for t in make_tasks(TasksConfig(set="nyud"), {"semseg": 40})}
        assert tasks["semseg"].channels == tasks["semseg"].make_metric().classes == 40

    @pytest.mark.parametrize(
        ("classes", "message"),
        [
            ({"human_parts": 7, "saliency": 2}, r"'semseg' wants class labels .* \(given: human_parts, saliency\)"),
            ({}, r"'semseg' .* \(given: none\)"),
            ({"semseg": 1, "human_parts": 7, "saliency": 2}, "'semseg' wants labels of at least 2 classes"),
            ({"semseg": 2, "human_parts": 7, "saliency": 3}, "'saliency' wants labels of 2 classes, .* gives 3"),
        ],
    )
    def test_labels_that_do_not_fit_are_named(self, classes, message):
        with pytest.raises(ConfigError, match=message):
            make_tasks(TasksConfig(set="pascal_context"), classes)


class TestInclude:
    def test_picks_and_orders(self):
        config = TasksConfig(set="nyud", include=("edge", "depth"))
        assert task_names(config) == ("edge", "depth")
        assert [t.name for t in make_tasks(config, {})] == ["edge", "depth"]

    @every_set
    def test_all_in_order_is_none(self, name):
        everything = TasksConfig(set=name, include=tuple(TASK_SETS[name]))
        assert everything == TasksConfig(set=name)
        assert hash(everything) == hash(TasksConfig(set=name))
        assert everything.canonical() == TasksConfig(set=name).canonical()

    def test_all_in_another_order_is_kept(self):
        names = tuple(reversed(TASK_SETS["nyud"]))
        config = TasksConfig(set="nyud", include=names)
        assert task_names(config) == names
        assert config != TasksConfig(set="nyud")

    @every_set
    def test_round_trip(self, name):
        for config in (TasksConfig(set=name), TasksConfig(set=name, include=tuple(TASK_SETS[name])[1:3])):
            assert TasksConfig.parse(config.to_dict()) == config
            assert TasksConfig.parse(config.canonical()) == config


class TestMistakes:
    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"set": "nyu"}, r"^tasks\.set: unknown task set 'nyu'; did you mean 'nyud'\?"),
            (
                {"set": "nyud", "include": ["dept"]},
                r"^tasks\.include: unknown nyud task 'dept'; did you mean 'depth'\?",
            ),
            ({"set": "nyud", "include": []}, r"^tasks\.include: at least one task is wanted \(allowed: semseg, depth"),
            ({"set": "nyud", "include": ["edge", "depth", "edge"]}, r"^tasks\.include: task 'edge' is given twice"),
            ({"normal_loss": "l2"}, r"^tasks\.normal_loss: should be 'l1', 'cosine' or 'width_axis', got 'l2'"),
            ({"set": "nyud", "edge_weight": 1.0}, r"^tasks\.edge_weight: should be less than 1, got 1\.0"),
            ({"set": "nyud", "normal_loss": "width_axis"}, r"^tasks\.normal_loss: .* 'taskonomy' only"),
            ({"saliency_scores": "double_sigmoid"}, r"no task .* reads it \(read by: pascal_context\.saliency\)"),
            ({"include": ["normal"], "taskonomy_metrics": "released"}, r"^tasks\.taskonomy_metrics: no task"),
            ({"set": "nyud", "include": ["depth"], "edge_nms": False}, r"^tasks\.edge_nms: no task"),
            (
                {"set": "pascal_context", "include": ["edge"], "absent_classes": "nan"},
                r"^tasks\.absent_classes: no task",
            ),
            ({"edge_max_dist": 0.02}, r"^tasks\.edge_max_dist: no task"),
        ],
    )
    def test_one_line_names_the_field(self, fields, message):
        with pytest.raises(ConfigError, match=message) as caught:
            TasksConfig.parse(fields, "tasks")
        assert "\n" not in str(caught.value)

    def test_a_wrong_set_is_named_before_what_follows_from_it(self):
        with pytest.raises(ConfigError, match=r"^set: unknown task set"):
            TasksConfig.parse({"set": "nyu", "include": ["nothing"], "edge_nms": False})

    def test_config_is_frozen(self):
        with pytest.raises(ValidationError, match="frozen"):
            TasksConfig().set = "nyud"


class TestOptions:
    def test_every_option_is_refused_where_nothing_reads_it(self):
        others = {
            "normal_loss": "cosine",
            "taskonomy_metrics": "released",
            "edge_weight": 0.8,
            "absent_classes": "drop",
            "saliency_scores": "double_sigmoid",
            "edge_thresholds": 101,
            "edge_max_dist": 0.02,
            "edge_nms": False,
            "edge_truth": "outline",
        }
        assert {"set", "include", *others} == set(TasksConfig.model_fields)
        for name, value in others.items():
            with pytest.raises(ConfigError, match=f"^{name}: no task of this config reads it"):
                TasksConfig.parse({"include": ["reshading"], name: value})
            default = TasksConfig.model_fields[name].default
            assert TasksConfig.parse({"include": ["reshading"], name: default}) == TasksConfig(include=("reshading",))

    def test_every_field_is_documented(self):
        assert all(field.description for field in TasksConfig.model_fields.values())

    def test_normal_losses_differ(self):
        x, t = torch.randn(2, 3, 6, 9, generator=torch.Generator().manual_seed(0)), torch.zeros(2, 3, 6, 9)
        t[:, 2] = 1.0
        values = {by_name(normal_loss=how)["normal"].loss(x, t).item() for how in ("l1", "cosine", "width_axis")}
        assert len(values) == 3

    @pytest.mark.parametrize("name", ["nyud", "pascal_context"])
    def test_normal_loss_of_the_invpt_family(self, name):
        x, t = torch.zeros(1, 3, 1, 1), torch.zeros(1, 3, 1, 1)
        x[0, 0], t[0, 1] = 5.0, 1.0
        assert by_name(set=name)["normals"].loss(x, t).item() == pytest.approx(2.0)
        assert by_name(set=name, normal_loss="cosine")["normals"].loss(x, t).item() == pytest.approx(1.0)

    def test_released_taskonomy_metrics(self):
        tasks = by_name(taskonomy_metrics="released")
        changed = {name: task.metric for name, task in tasks.items() if task.metric != "l1"}
        assert changed == {"principal_curvature": "mse", "depth_euclidean": "rmse_display"}
        metric = tasks["principal_curvature"].make_metric()
        metric.update(torch.full((1, 2, 3, 3), 3.0), torch.zeros(1, 2, 3, 3))
        assert metric.compute() == 9.0
        metric = tasks["depth_euclidean"].make_metric()
        metric.update(torch.zeros(1, 1, 3, 3), torch.ones(1, 1, 3, 3))
        assert metric.compute() == 79.0

    def test_options_reach_losses_and_metrics(self):
        tasks = by_name(
            set="pascal_context",
            edge_weight=0.8,
            absent_classes="drop",
            saliency_scores="double_sigmoid",
            edge_thresholds=101,
            edge_nms=False,
            edge_truth="outline",
        )
        edge = tasks["edge"].make_metric()
        assert (len(edge.thresholds), edge.nms, edge.truth) == (101, False, "outline")
        assert tasks["semseg"].make_metric().absent_classes == "drop"
        assert tasks["human_parts"].make_metric().absent_classes == "drop"
        assert tasks["saliency"].make_metric().scores == "double_sigmoid"
        on_edge = tasks["edge"].loss(torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2))
        assert on_edge.item() == pytest.approx(0.8 * torch.log(torch.tensor(2.0)).item())

    @pytest.mark.parametrize(("name", "own"), [("nyud", 0.011), ("pascal_context", 0.0075)])
    def test_tolerance_of_edges_is_the_benchmarks(self, name, own):
        assert by_name(set=name)["edge"].make_metric().max_dist == own
        assert by_name(set=name, edge_max_dist=0.02)["edge"].make_metric().max_dist == 0.02
        assert TasksConfig(set=name, edge_max_dist=own) == TasksConfig(set=name)

    def test_mtan_has_conventions_of_its_own(self):
        tasks = by_name(set="nyuv2")
        x, t = torch.zeros(1, 3, 1, 2), torch.zeros(1, 3, 1, 2)
        x[0, 0], t[0, 0, 0, 0] = 5.0, 1.0
        x[0, 1, 0, 0] = 5.0
        assert tasks["normal"].loss(x, t).item() == pytest.approx(1 - 0.5**0.5, abs=1e-5)
        depth, measured = torch.tensor([[[[3.0, 9.0]]]]), torch.tensor([[[[2.0, 0.0]]]])
        metric = tasks["depth"].make_metric()
        metric.update(depth, measured)
        assert metric.compute() == tasks["depth"].loss(depth, measured).item() == 1.0
        assert by_name(set="cityscapes", absent_classes="nan")["semseg"].make_metric().absent_classes == "nan"

    @pytest.mark.parametrize(
        ("name", "own"),
        [
            ("taskonomy", {"normal_loss": "l1"}),
            ("nyud", {"normal_loss": "l1", "absent_classes": "zero"}),
            ("nyuv2", {"normal_loss": "cosine"}),
        ],
    )
    def test_a_sets_own_convention_given_is_the_default(self, name, own):
        assert TasksConfig.parse({"set": name, **own}) == TasksConfig(set=name)
        assert TasksConfig(set=name).canonical() == ({} if name == "taskonomy" else {"set": name})


class TestMaskedPixels:
    @pytest.mark.parametrize("fields", [{}, {"normal_loss": "cosine"}, {"taskonomy_metrics": "released"}])
    def test_they_change_neither_loss_nor_metric(self, fields):
        config, generator = TasksConfig(**fields), torch.Generator().manual_seed(0)
        everything = {task.name: task for task in make_tasks(config, {})}
        for task in make_tasks(config, {}, set(everything)):
            x = torch.rand(2, task.channels, 6, 8, generator=generator, dtype=torch.float64).requires_grad_()
            target = torch.rand(2, task.channels, 6, 8, generator=generator, dtype=torch.float64)
            masked = target.clone()
            masked[..., 4:] = 255.0
            whole, part = everything[task.name], task
            loss = part.loss(x, masked)
            loss.backward()
            assert loss.item() == pytest.approx(whole.loss(x[..., :4], target[..., :4]).item(), rel=1e-6), task.name
            assert x.grad[..., 4:].abs().sum() == 0
            values = []
            for metric, p, t in (
                (part.make_metric(), x, masked),
                (whole.make_metric(), x[..., :4], target[..., :4]),
            ):
                metric.update(p, t)
                values.append(metric.compute())
            assert values[0] == pytest.approx(values[1], rel=1e-6), task.name

    def test_only_labels_that_are_masked_are_treated_so(self):
        tasks = {task.name: task for task in make_tasks(TasksConfig(), {}, {"normal"})}
        x, t = torch.zeros(1, 3, 1, 2), torch.tensor([1.0, 255.0]).expand(1, 3, 1, 2)
        assert tasks["normal"].loss(x, t).item() == 1
        assert tasks["reshading"].loss(x, t).item() == 128

    def test_a_loss_over_whole_rows_can_leave_out_none(self):
        with pytest.raises(ConfigError, match=r"^tasks\.normal_loss: 'width_axis' .* cannot leave out any"):
            make_tasks(TasksConfig(normal_loss="width_axis"), {}, {"normal"})
