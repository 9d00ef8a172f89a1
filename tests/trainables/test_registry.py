"""What other packages add to the registries, found by their entry points on the path."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from trainables.config import cell_key, load_trial, trial_key
from trainables.data import DATA_SETS
from trainables.errors import ConfigError, ExtensionError
from trainables.methods import METHODS, Method
from trainables.methods.gd import GD, GDConfig
from trainables.methods.selective import CLUSTERERS
from trainables.models import BACKBONES, VIT_PICO
from trainables.registry import Registry, component_of, having
from trainables.settings import component
from trainables.task_sets import TASK_SETS

Install = Callable[..., Path]

METHOD = """
from typing import Literal
from trainables.methods.gd import GD, GDConfig

class OtherConfig(GDConfig):
    name: Literal["other"] = "other"

class Other(GD):
    Config = OtherConfig
    result_version = {version}
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Puts a package on the path as an installed one would be: a module and the metadata beside it."""

    def put(package: str, code: str, **groups: str) -> Path:
        site = tmp_path / package
        info = site / f"{package.replace('-', '_')}-1.0.dist-info"
        info.mkdir(parents=True)
        (site / f"{package.replace('-', '_')}.py").write_text(code, encoding="utf-8")
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n", encoding="utf-8")
        lines = [f"[mtl_study.{group}]\n{points}\n" for group, points in groups.items()]
        (info / "entry_points.txt").write_text("\n".join(lines), encoding="utf-8")
        monkeypatch.syspath_prepend(site)
        return site

    return put


def methods() -> Registry[type[Method]]:
    """A registry like that of the methods that has looked for nothing yet."""
    registry: Registry[type[Method]] = Registry("method", "mtl_study.methods", component_of(Method))
    registry.register("gd", GD)
    return registry


def test_a_method_of_another_package_is_found_by_its_entry_point(install: Install) -> None:
    install("ext-found", METHOD.format(version=1), methods="other = ext_found:Other")
    registry = methods()
    assert "other" in registry
    assert (list(registry), len(registry)) == (["gd", "other"], 2)
    assert registry["other"].__name__ == "Other"
    assert registry["other"] is registry["other"]
    assert type(component(registry, {"name": "other", "steps_per_batch": 2}, "method")).__name__ == "OtherConfig"
    with pytest.raises(ConfigError, match=r"unknown method 'othr'; did you mean 'other'\? \(allowed: gd, other\)"):
        registry["othr"]
    with pytest.raises(ValueError, match="method 'other' is registered already"):
        registry.register("other", GD)


def test_nothing_is_imported_before_it_is_looked_up(install: Install) -> None:
    site = install(
        "ext-lazy", "from pathlib import Path\nPath(__file__).with_name('seen').touch()\n", methods="l = ext_lazy:L"
    )
    registry = methods()
    assert registry["gd"] is GD
    assert list(registry) == ["gd", "l"]
    assert not (site / "seen").exists()
    with pytest.raises(ExtensionError):
        registry["l"]
    assert (site / "seen").exists()


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (
            "import not_there_at_all",
            "cannot be imported from {module}:Other: ModuleNotFoundError: No module named 'not_",
        ),
        ("raise RuntimeError('two\\nlines')", "cannot be imported from {module}:Other: RuntimeError: two lines"),
        ("Other = 3", "{module}:Other: a subclass of trainables.methods.base.Method is wanted"),
        ("", "cannot be imported from {module}:Other: AttributeError: "),
        (
            "from trainables.methods.gd import GD as Other",
            "{module}:Other: its config's name is 'gd', its entry point's",
        ),
        (
            "from trainables.methods import Method\nclass Other(Method): pass",
            "{module}:Other: it has no Config with a field 'name'",
        ),
        (METHOD.format(version=0), "{module}:Other: its result_version is 0; a whole number from 1 is wanted"),
        (
            METHOD.format(version="'1.2'"),
            "{module}:Other: its result_version is '1.2'; a whole number from 1 is wanted",
        ),
    ],
)
def test_an_extension_that_does_not_work_is_named(
    install: Install, code: str, message: str, request: pytest.FixtureRequest
) -> None:
    package = f"ext-broken-{request.node.callspec.indices['code']}"
    module = package.replace("-", "_")
    install(package, code, methods=f"other = {module}:Other")
    registry = methods()
    with pytest.raises(ExtensionError) as caught:
        registry["other"]
    assert str(caught.value).startswith(f"method 'other' of package {package}: {message.format(module=module)}")
    assert "\n" not in str(caught.value)
    assert registry["gd"] is GD  # the rest is as it was


def test_a_name_that_is_taken_names_both_packages(install: Install) -> None:
    install("ext-clash", METHOD.format(version=1), methods="gd = ext_clash:Other")
    registry = methods()
    assert registry["gd"] is GD  # nothing else was asked for
    with pytest.raises(ExtensionError, match=r"^method 'gd' is in two packages, mtl-study and ext-clash: "):
        list(registry)


def test_two_extensions_of_one_name_are_named(install: Install) -> None:
    install("ext-one", METHOD.format(version=1), methods="other = ext_one:Other")
    install("ext-two", METHOD.format(version=1), methods="other = ext_two:Other")
    with pytest.raises(ExtensionError, match=r"^method 'other' is in two packages, ext-(one|two) and ext-(one|two): "):
        "other" in methods()  # noqa: B015 - a lookup is what raises


def test_a_registry_without_a_group_looks_for_nothing(install: Install) -> None:
    install("ext-group", METHOD.format(version=1), methods="other = ext_group:Other")
    assert "other" not in Registry[int]("thing")


def test_a_backbone_has_to_be_one() -> None:
    complaint = having("inputs", "build")
    assert complaint("vit_pico", VIT_PICO) == ""
    assert complaint("vit", VIT_PICO) == "its name is 'vit_pico', its entry point's 'vit'"
    assert complaint("vit", object()) == "it has no 'name'"


@pytest.mark.parametrize(
    ("registry", "group"),
    [
        (METHODS, "methods"),
        (DATA_SETS, "data_sets"),
        (TASK_SETS, "task_sets"),
        (BACKBONES, "backbones"),
        (CLUSTERERS, "clusterers"),
    ],
)
def test_groups_of_entry_points_and_what_they_take(registry: Registry[object], group: str) -> None:
    assert registry.group == f"mtl_study.{group}"
    for name, entry in registry.items():
        assert registry._complaint(name, entry) == "" or ":" in name  # a family: one class under many names
        assert registry.stamp(name) == {}
    assert registry._complaint("name", object()) != ""


def test_the_result_version_of_a_component_is_part_of_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    fields = {"data": {"name": "scenes"}, "method": {"name": "selective"}, "model": {"backbone": "vit_pico"}}
    config = load_trial(fields)
    chosen = (METHODS["selective"], DATA_SETS["scenes"], CLUSTERERS["positive_affinity"])
    keys = {trial_key(config)}
    cells = {cell_key(config)}
    for part in chosen:
        with monkeypatch.context() as patch:
            patch.setattr(part, "result_version", 2)
            keys.add(trial_key(config))
            cells.add(cell_key(config))
    assert (len(keys), len(cells)) == (4, 4)
    monkeypatch.setattr(CLUSTERERS["affinity_propagation"], "result_version", 2)
    assert trial_key(config) in keys  # it is not used


def test_who_adds_a_component_and_its_version_are_part_of_the_key(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("ext-key", METHOD.format(version=3), methods="other = ext_key:Other")
    registry = methods()
    assert registry.stamp("other") == {"package": "ext-key", "result_version": 3}
    monkeypatch.setattr("trainables.config.METHODS", registry)
    config = load_trial({"method": "other"})
    assert type(config.method).__base__ is GDConfig
    key = trial_key(config)
    monkeypatch.setattr(registry["other"], "result_version", 4)
    assert trial_key(config) != key
