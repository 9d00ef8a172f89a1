from __future__ import annotations

import json
import signal
from pathlib import Path

import optuna
import pytest
from contests import SPEC, little

from study.cli.searching import read_points
from study.home import Home
from study.resources import Resources
from study.search import load_search, plan_search, search_names
from study.search.limits import Limits, Patience
from study.search.sensitivity import sensitivity_plan
from study.search.spec import SearchSpec
from study.search.storage import open_storage, storage_url
from study.spec import profiles
from trainables.errors import ConfigError, StoreError
from trainables.methods import METHODS


@pytest.mark.parametrize("name", search_names())
@pytest.mark.parametrize("profile", [name for name in profiles() if name != "paper"])
def test_every_shipped_search_resolves_at_every_profile(name: str, profile: str) -> None:
    plan = plan_search(load_search(name), profile)
    assert json.loads(json.dumps(plan.parent_run().document)) == plan.parent_run().document
    assert plan.most_passes() > 0
    studies = [contender.study for contender in plan.contenders]
    assert len(set(studies)) == len(studies)
    for contender in plan.contenders:
        trial = contender.trial({})
        assert not trial.config.record.test
        assert trial.seed == 1000
        assert trial.seed not in plan.final().seeds


def test_tuned_holds_the_proposed_method_and_its_twelve_baselines() -> None:
    names = {contender.id for contender in load_search("tuned").contenders}
    assert len(names) == 13
    assert names < set(METHODS)


def test_search_trials_and_table_trials_are_evaluated_differently_and_are_one_trial() -> None:
    plan = plan_search(little())
    searched = plan.contenders[0].trial({}).config
    row = next(row for row in plan.final().rows if row.id == "gd_default")
    assert row.trials[0].config.record.test
    assert searched.with_seed(0).canonical() | {"record": {}} == row.trials[0].config.canonical() | {"record": {}}


def test_winners_become_rows_beside_the_defaults() -> None:
    plan = plan_search(little(), seeds=2)
    rows = plan.final({"gd": {"optim.lr": 0.02, "train.batch_size": 8}}).rows
    assert [row.id for row in rows] == ["single_task", "gd_default", "gd_tuned"]
    assert [trial.config.optim.lr for trial in rows[2].trials] == [0.02, 0.02]
    assert [trial.seed for trial in rows[2].trials] == [0, 1]


def test_a_search_names_its_resources_and_its_studies_have_them() -> None:
    search = load_search("tuned")
    named = SearchSpec.parse({**search.model_dump(mode="json"), "resources": {"processes": 2}})
    assert named.final().resources == Resources(processes=2)
    assert sensitivity_plan(named, "smoke").spec.resources == Resources(processes=2)
    assert search.final().resources == Resources()


def test_sampler_pruner_and_seed_make_another_optuna_study_and_the_budget_does_not() -> None:
    study = plan_search(little()).contenders[0].study
    assert plan_search(little().changed(trials=99)).contenders[0].study == study
    for change in ({"sampler": "tpe"}, {"pruner": "asha"}, {"sampler_seed": 1}):
        assert plan_search(little().changed(**change)).contenders[0].study != study  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sampler": {"name": "tpee"}}, "sampler.name: .*'tpe'"),
        ({"budget": {}}, "budget: trials or trunk_passes is wanted"),
        (
            {"objective": {"name": "tasks"}, "pruner": {"name": "asha"}},
            "pruner.name: 'asha' orders trials by one number",
        ),
        ({"contenders": [{"id": "a", "label": "A"}] * 2}, "contenders.1.id: 'a' is taken"),
        ({"trialz": 3}, "trialz"),
    ],
)
def test_mistakes_in_a_spec_are_one_line(change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        little(**change)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"axes": {"optim.lrr": [1.0]}}, "contenders.gd: axes.optim.lrr"),
        ({"axes": {}}, "there is no axis to search over"),
        ({"space": ["optimiser"], "axes": {}}, "did you mean 'optimizer'"),
        ({"contenders": [{"id": "x", "label": "X", "set": {"method": "cagradd"}}]}, "did you mean 'cagrad'"),
    ],
)
def test_mistakes_in_a_space_name_the_contender_and_the_axis(change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        plan_search(little(**change))


def test_names_that_are_unknown_name_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown search 'tune'; did you mean 'tuned'"):
        load_search("tune")
    with pytest.raises(ConfigError, match="unknown contender 'gdd'; did you mean 'gd'"):
        little().restricted(["gdd"])
    with pytest.raises(ConfigError, match="seed: the search's trials"):
        plan_search(little(), overrides={"seed": 3})
    with pytest.raises(ConfigError, match=r"--set optim\.lr: is an axis of contender 'gd'"):
        plan_search(little(), overrides={"optim.lr": 0.1})
    path = tmp_path / "mine.yaml"
    path.write_text(SPEC.replace("budget: {trials: 12}", "budget: {trials: -1}"))
    with pytest.raises(ConfigError, match=r"mine\.yaml: budget\.trials"):
        load_search(str(path))


def test_storage_by_file_by_journal_and_by_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = Home(tmp_path / "home")
    assert storage_url(home) == f"sqlite:///{home.path / 'optuna.db'}"
    assert isinstance(open_storage(home), optuna.storages.RDBStorage)
    assert isinstance(open_storage(home, f"journal:{tmp_path / 'j.log'}"), optuna.storages.JournalStorage)
    monkeypatch.setenv("MTL_STUDY_OPTUNA", "sqlite:////elsewhere.db")
    assert storage_url(home) == "sqlite:////elsewhere.db"


def test_passwords_are_not_repeated(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="search storage") as caught:
        open_storage(Home(tmp_path), "postgresql+nodriver://me:secret@host/db")
    assert "secret" not in str(caught.value)
    with pytest.raises(StoreError, match="search storage nothing: cannot be opened"):
        open_storage(Home(tmp_path), "nothing")


def test_limits_of_an_invocation() -> None:
    said: list[str] = []
    assert Patience(Limits(), 0.0, said.append).out_of() == ""
    assert "hours are over" in Patience(Limits(hours=0.0), 0.0, said.append).out_of()
    patience = Patience(Limits(gpu_hours=1.0), 0.5, said.append)
    patience.used(3600.0)
    assert patience.out_of() == ""
    patience.used(3600.0)
    assert patience.out_of() == "its 1 GPU-hours are used"
    assert said == []


def test_sensitivity_varies_one_field_around_the_defaults() -> None:
    plan = sensitivity_plan(load_search("tuned").restricted(["selective", "cagrad"]), "cpu", seeds=1)
    rows = {row.id: row.trials[0].config for row in plan.rows if row.id != "single_task"}
    default = rows["selective"].canonical()
    for name, config in rows.items():
        if name.startswith("selective_"):
            assert config.canonical() != default
            assert config.canonical().keys() == default.keys()
    betas = {rows[name].method.beta for name in rows if "beta" in name}  # type: ignore[attr-defined]
    assert betas == {2.5e-4, 5e-4, 2e-3, 4e-3}
    assert "selective_method_grouping_random" not in rows  # it needs a number of groups, which no default gives
    assert {config.method.name for config in rows.values()} == {"selective", "cagrad"}
    assert len({cell.key for row in plan.rows for cell in row.trials}) == plan.named  # no two rows are one trial


def test_ctrl_c_once_twice_and_three_times() -> None:
    said: list[str] = []
    patience = Patience(Limits(), 0.0, said.append)
    before = signal.getsignal(signal.SIGINT)
    with patience.listening():
        signal.raise_signal(signal.SIGINT)
        assert (patience.interrupted, patience.suspending) == (True, False)
        assert patience.out_of() == "stopped by the user"
        signal.raise_signal(signal.SIGINT)
        assert patience.suspending
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before
    assert [line.split(";")[0] for line in said] == [
        "finishing the trials that run",
        "stopping each trial at its next checkpoint",
    ]


def test_points_are_read_from_a_csv_file(tmp_path: Path) -> None:
    path = tmp_path / "tried.csv"
    path.write_text("optim.lr,train.batch_size\n1e-2,8\n0.003,\n", encoding="utf-8")
    assert read_points(path) == [{"optim.lr": 0.01, "train.batch_size": 8}, {"optim.lr": 0.003}]
    path.write_text("optim.lr\n1e-2,8\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="line 2: more cells than columns"):
        read_points(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not a CSV file in UTF-8"):
        read_points(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_points(tmp_path / "none.csv")
