from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from synthetic_claims import evidence, records, scenario
from synthetic_records import SyntheticStore, baseline_row, cell, plan, row

from analysis.claims import CLAIMS, Criteria, Evidence, claims, judge
from analysis.claims.evidence import gains_of
from analysis.claims.paper import BASELINES
from analysis.records import Records
from analysis.render import FORMATS, WIDTH, render
from analysis.tables import rows_table
from trainables.errors import ConfigError, StoreError

IDS = [claim.id for claim in CLAIMS]
BY_ID = {claim.id: claim for claim in CLAIMS}


def judged(claim: str, found: Evidence, criteria: Criteria | None = None) -> pd.DataFrame:
    return judge(found, [BY_ID[claim]], criteria or Criteria())


def verdict(claim: str, found: Evidence, criteria: Criteria | None = None) -> str:
    return judged(claim, found, criteria)["verdict"][0]


# Gains


def test_gains_are_those_of_the_table(mixed_home: Path):
    found = Records.load(mixed_home, "toy")
    gains, table = gains_of(found), rows_table(found)
    for row_id, label in zip(table.attrs["row_ids"], table.index, strict=True):
        values = gains.delta_m(row_id)
        if not math.isnan(table.loc[label, "delta_m"]):
            assert np.mean(list(values.values())) == pytest.approx(table.loc[label, "delta_m"], abs=1e-9)
            assert row_id not in gains.lost
    assert gains.lost == {"diverged": (1,)}
    assert gains.delta_m("absent") == {}
    assert gains.task("gd", "depth") == pytest.approx({0: 10.0, 1: -10.0})


def test_a_baseline_that_lost_a_seed_or_is_zero_leaves_no_gains():
    lost = records("d1", {"selective": [1.0, 2.0]}, diverged=[("single_task", 1)])
    assert gains_of(lost).delta_m("selective") == {}
    zero = records("d1", {"selective": [1.0], "single_task": [100.0]})
    assert gains_of(zero).delta_m("selective") == {}
    assert gains_of(records("d1", {"selective": [1.0]}, changes={"baseline": None})).delta_m("selective") == {}


# Verdicts


@pytest.mark.parametrize("claim", IDS)
@pytest.mark.parametrize(
    ("size", "noise", "seeds", "expected"),
    [(1, 0.2, 12, "supported"), (-1, 0.2, 12, "contradicted"), (0.1, 9.0, 3, "undecided"), (1, 0.2, 1, "undecided")],
)
def test_known_verdicts(claim, size, noise, seeds, expected):
    table = judged(claim, scenario(claim, size, noise, seeds))
    assert table["verdict"][0] == f"{expected} at cpu"
    if expected != "contradicted":
        assert set(table["verdict"]) == {f"{expected} at cpu"}
    assert (table["n"] == seeds).all()
    assert len(table) > 1


@pytest.mark.parametrize("claim", IDS)
def test_not_measured_says_what_to_run(claim):
    table = judged(claim, evidence())
    assert table["verdict"].tolist() == ["not measured at cpu"]
    assert f"mtl-study run {BY_ID[claim].studies[0]} --profile cpu" in table["note"][0]


def test_planned_and_not_trained_is_not_measured():
    found = records("table4", {"selective": [1.0, 2.0], "separate": [0.0, 0.0]})
    untrained = replace(found, trials=found.trials.assign(status="missing"), metrics=found.metrics.iloc[:0])
    table = judged("beats_separate", evidence(untrained))
    assert table["verdict"].tolist() == ["not measured at cpu"] * 2
    assert table["note"][1] == "mtl-study run table4 --profile cpu"


@pytest.mark.parametrize("claim", IDS)
def test_which_seed_is_which_does_not_matter(claim):
    found = scenario(claim, 0.5, 1.0, 5)
    turned = {}
    for study, one in found.records.items():
        relabel = {seed: (3 * seed + 1) % 5 for seed in range(5)}
        trials = one.trials.assign(seed=one.trials["seed"].map(relabel)).sample(frac=1, random_state=1)
        metrics = one.metrics.assign(seed=one.metrics["seed"].map(relabel)).sample(frac=1, random_state=2)
        turned[study] = replace(one, trials=trials, metrics=metrics)
    numbers = ["n", "difference", "sd", "low", "high", "effect", "p", "p_claim", "p_all"]
    before, after = judged(claim, found), judged(claim, Evidence("cpu", turned))
    np.testing.assert_allclose(before[numbers], after[numbers], rtol=1e-6, atol=1e-9)
    assert before["verdict"].tolist() == after["verdict"].tolist()


def test_one_failing_baseline_contradicts_beating_every_one():
    rows = {"selective": [5.0, 5.2, 4.9, 5.1], **{name: [0.0, 0.1, -0.1, 0.1] for name in BASELINES}}
    assert verdict("beats_every_baseline", evidence(records("d1", rows))) == "supported at cpu"
    rows["nash_mtl"] = [9.0, 9.1, 9.2, 8.9]
    assert verdict("beats_every_baseline", evidence(records("d1", rows))) == "contradicted at cpu"


def test_a_missing_baseline_leaves_it_open_through_another_study_or_none():
    rows = {"selective": [5.0, 5.2, 4.9, 5.1], **{name: [0.0, 0.1, -0.1, 0.1] for name in BASELINES[:-1]}}
    found = evidence(records("d1", rows))
    assert verdict("beats_every_baseline", found) == "not measured at cpu"
    assert verdict("beats_gd", found) == "supported at cpu"


def test_another_study_serves_where_none_named_is_recorded():
    rows = {"selective": [5.0, 5.2, 4.9], "separate": [0.0, 0.1, 0.3]}
    table = judged("beats_separate", evidence(records("my_own", rows)))
    assert table["study"][1] == "my_own"
    both = judged("beats_separate", evidence(records("my_own", rows), records("table4", rows)))
    assert both["study"].tolist()[1:] == ["table4"]


def test_shared_trials_count_once():
    rows = {"selective": [5.0, 5.2, 4.9], "gd": [0.0, 0.1, 0.3]}
    same = [records(study, rows, own_keys=False) for study in ("d1", "table2")]
    table = judged("beats_gd", evidence(*same))
    assert table["study"].tolist()[1:] == ["table2, d1"]
    apart = [records(study, rows) for study in ("d1", "table2")]
    assert len(judged("beats_gd", evidence(*apart))) == 3


def test_the_joint_row_goes_by_either_name():
    wins = [5.0, 5.2, 4.9]
    table = judged(
        "beats_gd",
        evidence(
            records("d1", {"selective": wins, "gd": [0.0, 0.1, 0.3]}),
            records("table4_d5", {"selective": wins, "joint": [0.0, 0.1, 0.3]}),
        ),
    )
    assert table["text"].tolist()[1:] == ["> selective - gd (d1)", "> selective - joint (table4_d5)"]


def test_lost_seeds():
    rows = {"selective": [5.0, 5.2, 4.9, 5.1], "separate": [0.0, 0.1, -0.1, 0.2]}
    whole_rival = [("separate", seed) for seed in range(4)]
    table = judged("beats_separate", evidence(records("table4", rows, diverged=whole_rival)))
    assert table["verdict"].tolist() == ["undecided at cpu", "no rival at cpu"]
    assert table["note"][1] == "separate has no finite result at seed 0, 1, 2, 3: nothing to compare with"
    # A method that lost a seed itself affirms nothing, whatever the others say.
    own = judged("beats_separate", evidence(records("table4", rows, diverged=[("selective", 2)])))
    assert own["verdict"][0] == "undecided at cpu"
    assert own["n"][1] == 3
    assert "selective has no finite result at seed 2" in own["note"][1]
    rival = judged("beats_separate", evidence(records("table4", rows, diverged=[("separate", 2)])))
    assert rival["verdict"][0] == "supported at cpu"


def test_a_diverged_baseline_method_does_not_hinder_beating_the_others():
    rows = {"selective": [5.0, 5.2, 4.9, 5.1], **{name: [0.0, 0.1, -0.1, 0.1] for name in BASELINES}}
    found = records("d1", rows, diverged=[("mgda", seed) for seed in range(4)])
    table = judged("beats_every_baseline", evidence(found))
    assert table["verdict"][0] == "supported at cpu"
    assert Counter(table["verdict"])["no rival at cpu"] == 1


def test_the_margin_decides_what_is_the_same():
    rows = {"selective": [0.0, 0.1, 0.2, 0.1], "selective_forward": [1.0, 1.2, 1.1, 1.0]}
    rows["selective_backward"] = [1.1, 1.0, 1.2, 1.1]
    found = evidence(records("table4", rows))
    assert verdict("order_matters_little", found, Criteria(margin=0.5)) == "contradicted at cpu"
    assert verdict("order_matters_little", found, Criteria(margin=1.0)) == "undecided at cpu"
    assert verdict("order_matters_little", found, Criteria(margin=2.0)) == "supported at cpu"


@pytest.mark.parametrize("changes", [{"level": 0.0}, {"power": 1.0}, {"margin": 0.0}, {"margin": math.nan}])
def test_criteria_out_of_range_are_named(changes):
    with pytest.raises(ConfigError, match=f"{next(iter(changes))} .* is not allowed"):
        Criteria(**changes)


def test_one_backbone_says_nothing_of_backbones():
    # A small profile may train all sizes with one backbone: the same trials are no evidence.
    same = [records(study, {"selective": [1.0, 2.0, 3.0]}, counts=[2.0, 3.0, 4.0]) for study in ("d1", "d3")]
    table = judged("groups_grow_with_backbone", evidence(*same))
    assert table["verdict"].tolist() == ["not measured at cpu"]
    assert table["note"][0].startswith("selective rows of one task set at two backbones: mtl-study run d3")


def test_the_slope_over_backbones_by_hand():
    found = evidence(
        records("d3", {"selective": [0.0, 0.0]}, backbone="vit_tiny", counts=[2.0, 3.0]),
        records("d1", {"selective": [0.0, 0.0]}, backbone="vit_base", counts=[4.0, 6.0]),
    )
    grow, shrink = (judged(f"groups_{way}_with_backbone", found) for way in ("grow", "shrink"))
    assert grow["difference"][1] == pytest.approx((1.0 + 1.5) / 2)  # two sizes apart, windows weighted by length
    assert shrink["difference"][1] == pytest.approx(-grow["difference"][1])


def test_shares_by_hand():
    table = judged("similar_tasks_grouped", evidence(records("d1", {"selective": [0.0] * 2}, depth_shares=[0.8, 0.9])))
    assert table["difference"].tolist()[1:] == pytest.approx([0.35, 0.35])
    assert table["unit"][1] == "share of iterations in one group"


def test_correction_within_a_claim_and_over_all():
    found = scenario("homogeneous_groups", 0.2, 1.0, 6)
    table = judge(found, CLAIMS, Criteria())
    inner = table[(table["claim"] == "homogeneous_groups") & (table["level"] == "comparison")]
    assert (inner["p_claim"] >= inner["p"] - 1e-12).all()
    assert (inner["p_all"] >= inner["p_claim"] - 1e-12).all()
    assert inner["p_claim"].min() == pytest.approx(min(1, 6 * inner["p"].min()))
    assert (inner["more_seeds"].dropna() >= 1).all()


# The whole


def test_partial_records_never_crash():
    found = evidence(
        records("table2", {"selective": [1.0, math.nan], "gd": [math.inf, 0.0]}),
        records("d4", {"beta_0_001": [1.0]}),
        records("table4", {"selective": [1.0], "separate": [1.0, 2.0]}, tasks=["normal"]),
    )
    table = judge(found, CLAIMS, Criteria())
    assert set(table.loc[table["level"] == "claim", "claim"]) == set(IDS)
    assert not table["verdict"].str.startswith("supported").any()
    for format in FORMATS:
        assert render(table, format)


def test_ten_thousand_trials():
    rng = np.random.default_rng(0)
    names = ["selective", *BASELINES, *(f"other_{place}" for place in range(86))]
    rows = {name: (rng.normal(size=100) + 3 * (name == "selective")).tolist() for name in names}
    found = records("table2", rows)
    assert len(found.trials) == 10_000
    table = judge(evidence(found), CLAIMS, Criteria())
    of_baselines = table[table["claim"] == "beats_every_baseline"]
    assert set(of_baselines["verdict"]) == {"supported at cpu"}
    assert (of_baselines["n"] == 100).all()


def test_every_format_names_the_profile():
    table = judge(scenario("beats_gd", 1, 0.2, 5), CLAIMS, Criteria())
    text = render(table)
    assert max(map(len, text.splitlines())) <= WIDTH
    assert "supported at cpu" in text
    assert "no verdict on the paper" in text
    data = json.loads(render(table, "json"), parse_constant=pytest.fail)
    assert data["profile"] == "cpu"
    assert data["rows"][1]["p_claim"] == table["p_claim"][1]
    paper = judge(replace(scenario("beats_gd", 1, 0.2, 5), profile="paper"), CLAIMS, Criteria())
    assert paper["verdict"][0] == "supported at paper"
    assert "no verdict on the paper" not in render(paper)


@pytest.fixture
def home(store: SyntheticStore) -> SyntheticStore:
    rows = [baseline_row(), row("selective", [cell(f"s-{i}", i) for i in (0, 1)]), row("gd", [cell("g-0", 0)])]
    store.study(plan(rows, study="d1"), start=1000, end=2000)
    store.study(plan(rows, study="d1", profile="smoke"), start=100, end=200)
    store.baseline()
    for key in ("s-0", "s-1", "g-0"):
        store.trial(key, {"depth/rmse": 2.0, "semseg/miou": 42.0}, study="d1")
    return store


def test_from_a_store(home: SyntheticStore):
    table = claims(home.home)
    assert table.attrs["profile"] == "cpu"
    first = table[table["claim"] == "beats_gd"]
    assert first["verdict"].tolist() == ["undecided at cpu"] * 2
    assert first["note"].iloc[1] == "one seed has no spread: at least one more"
    assert "also recorded, and not read here: profile smoke" in table.attrs["footnotes"]
    assert claims(home.home, "smoke")["profile"].unique().tolist() == ["smoke"]


def test_a_profile_that_is_not_recorded_is_named(home: SyntheticStore):
    with pytest.raises(StoreError, match=r"unknown profile in the records 'smok'; did you mean 'smoke'"):
        claims(home.home, "smok")


def test_a_home_without_studies(store: SyntheticStore, tmp_path: Path):
    with pytest.raises(StoreError, match="no study is recorded"):
        claims(store.home)
    with pytest.raises(StoreError, match="no records in"):
        claims(tmp_path / "nowhere")


def test_a_study_that_cannot_be_read_is_told_and_left_out(home: SyntheticStore):
    home.study(plan([baseline_row()], study="broken", schema=99), start=10, end=20)
    table = claims(home.home)
    assert any(note.startswith("study broken cannot be read: plan.json") for note in table.attrs["footnotes"])
    assert table["verdict"][0] == "undecided at cpu"
