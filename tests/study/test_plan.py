from __future__ import annotations

import csv
import io
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from search_spaces import Axis, apply, axes_from, grid
from study.home import Home
from study.overview import plan_overview
from study.plan import Plan, make_plan
from study.spec import StudySpec, bundles, load_spec, parse_spec, profile, profiles, spec_names, studies_of
from study.tracking import flatten
from trainables.errors import ConfigError, WeightsError

SPEC = """
id: little
title: A little study
profile: smoke
base:
  tasks: {include: [normal, reshading]}
baseline: single
rows:
  - {id: single, label: Single, set: {method: single_task}, per_task: true}
  - {id: gd, label: GD, set: {method: gd}, published: [{table: D.1, row: GD}]}
  - id: beta
    label: "beta={method.beta}"
    set: {method: selective}
    axes: {method.beta: [1e-3, 1e-2]}
    published: [{table: D.4, row: "beta={method.beta}"}]
  - {id: again, label: Default, set: {method: selective}}
"""


def little(text: str = SPEC) -> StudySpec:
    return parse_spec(text, "little.yaml")


def changed(old: str, new: str) -> str:
    assert old in SPEC
    return SPEC.replace(old, new)


def rows(plan: Plan) -> dict[str, list[str]]:
    return {row.id: [trial.label for trial in row.trials] for row in plan.rows}


def test_rows_axes_seeds_and_tasks_become_trials() -> None:
    plan = make_plan(little(), seeds=2)
    assert rows(plan) == {
        "single": [
            "Single | normal | seed 0",
            "Single | reshading | seed 0",
            "Single | normal | seed 1",
            "Single | reshading | seed 1",
        ],
        "gd": ["GD | seed 0", "GD | seed 1"],
        "beta_0_001": ["beta=0.001 | seed 0", "beta=0.001 | seed 1"],
        "beta_0_01": ["beta=0.01 | seed 0", "beta=0.01 | seed 1"],
        "again": ["Default | seed 0", "Default | seed 1"],
    }


def test_equal_cells_are_one_trial() -> None:
    plan = make_plan(little(), seeds=1)
    by_id = {row.id: row for row in plan.rows}
    assert by_id["again"].trials[0].key == by_id["beta_0_001"].trials[0].key
    assert plan.named == 6
    assert len(plan.trials) == 5


def test_replicates_share_a_cell_and_are_paired_by_seed() -> None:
    plan = make_plan(little(), seeds=3)
    for row in plan.rows:
        assert [trial.seed for trial in row.trials if trial.tasks == row.trials[0].tasks] == [0, 1, 2]
        assert len({trial.cell_key for trial in row.trials if trial.tasks == row.trials[0].tasks}) == 1
        assert len({trial.key for trial in row.trials}) == len(row.trials)


def test_later_fields_win_profile_base_row_axis_override() -> None:
    text = changed("title: A little study", "title: x\nprofiles: {smoke: {seeds: 2, set: {optim: {lr: 0.5}}}}")
    plan = make_plan(little(text), overrides={"train.batch_size": 2})
    assert len(plan.seeds) == 2
    config = plan.rows[1].trials[0].config
    assert (config.optim.lr, config.train.batch_size, config.train.budget.amount) == (0.5, 2, 4)
    assert plan.rows[3].trials[0].config.method.to_dict()["beta"] == 0.01


def test_the_plan_as_recorded_joins_rows_with_trials() -> None:
    plan = make_plan(little(), seeds=1)
    record = plan.to_dict()
    assert [task["name"] for task in record["tasks"]] == ["normal", "reshading"]
    assert record["tasks"][0]["metric"] == "l1"
    assert record["rows"][2]["published"] == [{"table": "D.4", "row": "beta=0.001"}]
    assert [cell["tasks"] for cell in record["rows"][0]["cells"]] == [["normal"], ["reshading"]]
    assert record["rows"][1]["cells"][0]["trial_key"] == plan.rows[1].trials[0].key
    assert plan.parent_run().digest() == make_plan(little(), seeds=1).parent_run().digest()
    assert plan.parent_run().digest() != make_plan(little(), seeds=2).parent_run().digest()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("baseline: single\n", "baseline: singel\n", "baseline: unknown row 'singel'; did you mean 'single'?"),
        ("id: gd,", "id: single,", "rows.1.id: 'single' is taken by another row"),
        ("rows:", "rowz:", "rowz: unknown field 'rowz'; did you mean 'rows'?"),
        ("id: gd,", "id: G D,", "rows.1.id: string should match pattern"),
        ("profile: smoke", "profile: smok", "profile: unknown profile 'smok'; did you mean 'smoke'?"),
        ("title: A little study", "title: [1]", "title: should be a valid string"),
        (
            "profile: smoke",
            "profile: smoke\nprofiles: {cpuu: {}}",
            "profiles: unknown profile 'cpuu'; did you mean 'cpu'?",
        ),
        ("per_task: true", "per_task: maybe", "rows.0.per_task: should be a valid boolean"),
    ],
)
def test_a_mistake_in_a_spec_names_file_and_field(old: str, new: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        little(changed(old, new))
    assert str(caught.value).startswith("little.yaml: " + message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[1e-3, 1e-2]", "[]", "rows.2.axes.method.beta: an axis needs at least one value"),
        ("[1e-3, 1e-2]", "[1e-3, 0.001]", "rows.2.axes.method.beta: the value 0.001 is given twice"),
        ("[1e-3, 1e-2]", "1e-3", "rows.2.axes.method.beta: a list of values is wanted, got 0.001"),
        ("{method.beta: [1e-3, 1e-2]}", "{method.bta: [1]}", "rows.2.label: unknown axis 'method.beta'; did you mean"),
        ("[1e-3, 1e-2]", "[1e-3, 2]", "row 'beta': method.beta: should be less than or equal to 1, got 2"),
        ("set: {method: gd}", "set: {method: {name: gd, steps: 2}}", "row 'gd': method.steps: unknown field 'steps'"),
        ("set: {method: single_task}, per_task: true", "set: {method: single_task}", "row 'single': tasks.include: "),
        ("[normal, reshading]", "[normal, reshadin]", "row 'single': tasks.include: unknown taskonomy task 'reshadin'"),
    ],
)
def test_a_mistake_in_the_cells_names_row_and_field(old: str, new: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make_plan(little(changed(old, new)))
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"profile_name": "gpuu"}, "unknown profile 'gpuu'; did you mean 'gpu'?"),
        ({"seeds": 0}, "seeds: at least 1, got 0"),
        ({"overrides": {"seed": 3}}, "seed: replicates are chosen by --seeds"),
        ({"overrides": {"optim.lrr": 3}}, "row 'single': optim.lrr: unknown field 'lrr'; did you mean 'lr'?"),
        ({"overrides": {"optim.lr": None}}, "row 'single': optim.lr: should be a valid number"),
    ],
)
def test_a_mistake_on_the_command_line_is_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make_plan(little(), **arguments)
    assert str(caught.value).startswith(message)


def test_an_unknown_study_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="unknown study 'table4_d'; did you mean 'table4_d5'"):
        load_spec("table4_d")


@pytest.mark.parametrize("name", spec_names())
@pytest.mark.parametrize("scale", ["smoke", "cpu", "gpu", "paper"])
def test_every_shipped_study_plans_at_every_profile(name: str, scale: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Neither the data sets nor the published weights of profile paper have to be there.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", "/nowhere")
    plan = make_plan(load_spec(name), scale)
    assert plan.trials
    assert all(len(row.trials) >= profile(scale).seeds for row in plan.rows)


def test_a_study_that_extends_another_takes_its_rows_over() -> None:
    one, other = (make_plan(load_spec(name), "gpu") for name in ("d1", "d3"))
    assert [row.id for row in one.rows] == [row.id for row in other.rows]
    assert {trial.config.model.backbone for trial in one.trials} == {"vit_base"}
    assert {trial.config.model.backbone for trial in other.trials} == {"vit_tiny"}
    assert {p["table"] for row in other.rows for p in row.published} == {"D.3"}
    unpublished = make_plan(load_spec("nyuv2"), "gpu")
    assert [row.id for row in unpublished.rows] == [row.id for row in one.rows]
    assert not any(row.published for row in unpublished.rows)
    with pytest.raises(ConfigError, match=r"x\.yaml: extend: unknown study 'd11'; did you mean"):
        parse_spec("{id: x, title: X, extend: d11}", "x.yaml")
    with pytest.raises(ConfigError, match=r"x\.yaml: rows: a study needs at least one row"):
        parse_spec("{id: x, title: X}", "x.yaml")


def test_bundles_name_studies_that_exist_and_share_their_cells(tmp_path: Path) -> None:
    for bundle in bundles().values():
        assert set(bundle.studies) <= set(spec_names())
    assert studies_of("d4") == ("d4",)
    plans = [make_plan(load_spec(name), "cpu") for name in studies_of("paper")]
    overview = plan_overview(plans, Home(tmp_path / "none"), workers=2)
    keys = [trial.key for plan in plans for row in plan.rows for trial in row.trials]
    assert (overview.named, overview.distinct) == (len(keys), len(set(keys)))
    assert overview.passes_saved == pytest.approx(
        sum(row.trunk_passes for row in overview.rows) - overview.trunk_passes
    )
    assert overview.passes_saved > 0
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_a_plan_that_shares_nothing_saves_nothing(tmp_path: Path, seeds: int) -> None:
    overview = plan_overview([make_plan(load_spec("d5"), "cpu", seeds)], Home(tmp_path / "none"), workers=2)
    assert overview.named == overview.distinct
    assert overview.passes_saved == 0  # And no rest of a sum that would be shown as -0.
    text = io.StringIO()
    overview.print(Console(file=text, width=160))
    assert "saved" not in text.getvalue()


def test_every_method_of_the_paper_has_its_row() -> None:
    labels = [row.label for row in make_plan(load_spec("d1"), "cpu").rows]
    published = [row["row"] for row in csv.DictReader((files("analysis") / "published" / "delta_m.csv").open())]
    assert {"Ours" if label == "Selective" else label for label in labels} == set(published[:14])


def test_fidelity_switches_every_difference_of_the_released_preset() -> None:
    rows_ = {row.id: row.trials[0].config.to_dict() for row in make_plan(load_spec("fidelity"), "cpu").rows}
    paper, released = flatten(rows_["paper"]), flatten(rows_["released"])
    differences = {path for path in paper | released if paper.get(path) != released.get(path)}
    switched = set()
    for name, config in rows_.items():
        if name not in {"paper", "released", "gd", "single_task"}:
            flat = flatten(config)
            changed = {path for path in paper | flat if paper.get(path) != flat.get(path)}
            assert changed, name
            assert all(flat.get(path) == released.get(path) for path in changed), name
            switched |= changed
    assert switched == differences


def test_the_ablation_has_the_rows_of_both_tables() -> None:
    plan = make_plan(load_spec("table4_d5"))
    published = {(p["table"], p["row"]) for row in plan.rows for p in row.published}
    assert {row for table, row in published if table.startswith("4")} == {
        "joint",
        "separate",
        "selective",
        "forward",
        "backward",
    }
    assert {row for table, row in published if table == "D.5"} == {"Heterogeneous", "Ours"} | {
        f"Random (M={m})" for m in range(2, 7)
    }
    assert len(plan.seeds) >= 2


def test_the_paper_profile_has_the_papers_settings() -> None:
    settings = profiles()["paper"].set
    assert settings["train"] == {"batch_size": 8, "budget": {"amount": 40000}}
    assert settings["optim"] == {"lr": 2e-5, "weight_decay": 1e-6}
    assert profiles()["paper"].seeds == 3


def test_weights_that_are_not_here_give_keys_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    plans = [
        make_plan(load_spec("d3"), "paper", seeds=1, overrides={"model.pretrained": pretrained})
        for pretrained in (True, False)
    ]
    keys = [{trial.key for trial in plan.trials} for plan in plans]
    assert len(keys[0]) == len(keys[1])
    assert keys[0].isdisjoint(keys[1])
    with pytest.raises(WeightsError, match=r"model\.pretrained: .*lost\.safetensors: no such file"):
        make_plan(load_spec("d3"), "paper", overrides={"model.pretrained": str(tmp_path / "lost.safetensors")})


def test_a_grid_is_the_product_of_its_axes_last_one_fastest() -> None:
    axes = axes_from({"a": [1, 2], "b.c": ["x", "y"]}, "here")
    assert list(grid(axes)) == [{"a": 1, "b.c": "x"}, {"a": 1, "b.c": "y"}, {"a": 2, "b.c": "x"}, {"a": 2, "b.c": "y"}]
    assert list(grid([])) == [{}]
    assert apply({"b": {"d": 0}}, {"b.c": "x"}) == {"b": {"d": 0, "c": "x"}}
    assert Axis("a", (1, 2)).values == (1, 2)
