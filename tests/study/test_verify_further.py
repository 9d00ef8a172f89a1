"""Records of versions that measured less of a task are no other results."""

from __future__ import annotations

from study.verify import _compare, _known_then
from trainables.config import load_trial

CONFIG = load_trial(
    {"tasks": {"set": "nyud", "include": ["depth"]}, "train": {"batch_size": 2}, "model": {"backbone": "vit_pico"}}
)
NOW = {("train/loss/depth", 4): 1.0, ("test/depth/rmse", 4): 2.0, ("test/depth/rel_err", 4): 3.0}


def compared(recorded: dict[tuple[str, int], float]) -> tuple[str, float]:
    return _compare(recorded, _known_then(CONFIG, recorded, NOW))


def test_a_further_metric_that_is_not_recorded_is_left_out() -> None:
    assert compared({key: value for key, value in NOW.items() if "rel_err" not in key[0]}) == ("", 0.0)


def test_one_that_is_recorded_is_compared() -> None:
    detail, apart = compared({**NOW, ("test/depth/rel_err", 4): 3.5})
    assert apart > 0.1
    assert detail.startswith("test/depth/rel_err at 4: 3.5 in the records, 3.0 now")
    detail, _ = compared({**NOW, ("test/depth/rel_err", 2): 1.0})
    assert detail.startswith("test/depth/rel_err at 2: ")


def test_the_metric_that_counts_has_to_be_there() -> None:
    detail, _ = compared({key: value for key, value in NOW.items() if "rmse" not in key[0]})
    assert detail.startswith("test/depth/rmse at 4: None in the records")
