"""Studies of other packages, and a study over a method of another package."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from other_packages import install, python

from study.cli.making import make
from study.spec import STUDIES, load_spec, spec_names
from trainables.errors import ConfigError, ExtensionError

STUDY = """
id: {id}
title: A method of another package beside GD
profile: smoke
base: {{tasks: {{set: taskonomy, include: [depth_zbuffer, normal]}}}}
baseline: gd
rows:
  - {{id: gd, label: GD, set: {{method: gd}}}}
  - {{id: mine, label: "Mine ({{method.decay}})", set: {{method: weigh}}, axes: {{method.decay: [0.5, 0.9]}}}}
"""


@pytest.fixture
def extended(monkeypatch: pytest.MonkeyPatch) -> dict[str, EntryPoint]:
    """Entry points that are found; filled by the test."""
    points: dict[str, EntryPoint] = {}
    monkeypatch.setattr(STUDIES, "_points", points)
    monkeypatch.setattr(STUDIES, "_loaded", {})
    return points


def test_a_study_of_another_package_is_one_of_them(
    extended: dict[str, EntryPoint], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ext_study.py").write_text(
        "from pathlib import Path\nHERE = Path(__file__).parent\nGOOD, WRONG = HERE / 'good.yaml', 3\n",
        encoding="utf-8",
    )
    (tmp_path / "good.yaml").write_text(STUDY.format(id="good"), encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    for name, target in {"good": "GOOD", "other": "GOOD", "wrong": "WRONG"}.items():
        extended[name] = EntryPoint(name, f"ext_study:{target}", STUDIES.group)
    assert {"good", "d4"} <= set(spec_names())
    assert load_spec("good").title == "A method of another package beside GD"
    with pytest.raises(ConfigError, match=r"^other\.yaml: id: is 'good', the file's name says 'other'$"):
        load_spec("other")
    with pytest.raises(
        ExtensionError, match=r"^study 'wrong' of package ext_study: .* the path of a YAML file is wanted"
    ):
        load_spec("wrong")
    with pytest.raises(ConfigError, match=r"unknown study 'god'; did you mean 'good'\?"):
        load_spec("god")


@pytest.mark.slow
def test_a_study_trains_a_method_of_another_package(tmp_path: Path) -> None:
    project = make("method", "weigh", tmp_path)
    install(tmp_path / "site", project)
    (tmp_path / "theirs.yaml").write_text(STUDY.format(id="theirs"), encoding="utf-8")
    done = python(tmp_path / "site", tmp_path, "-m", "study", "run", "theirs.yaml", "--executor", "local")
    assert done.returncode == 0, done.stderr
    assert "Mine (0.5)" in done.stdout
    assert "3 trials, 0 found finished, 3 trained" in done.stderr
    module = project / "mtl_study_weigh" / "__init__.py"
    module.write_text(
        module.read_text().replace("result_version: ClassVar[int] = 1", "result_version: ClassVar[int] = 2")
    )
    install(tmp_path / "newer", project)
    done = python(tmp_path / "newer", tmp_path, "-m", "study", "run", "theirs.yaml", "--executor", "local")
    assert done.returncode == 0, done.stderr
    assert "3 trials, 1 found finished, 2 trained" in done.stderr
