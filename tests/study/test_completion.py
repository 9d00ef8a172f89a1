"""Shell completion, asked as the shells' scripts ask."""

from __future__ import annotations

import pytest
from click.shell_completion import ShellComplete

from study.cli import main, run
from study.cli.completion import PROGRAM, SHELLS, VARIABLE


def offered(*words: str) -> list[tuple[str, str]]:
    """Kind and value of what is offered for the last word."""
    complete = ShellComplete(main, {}, PROGRAM, VARIABLE)
    return [(item.type, item.value) for item in complete.get_completions(list(words[:-1]), words[-1])]


def values(*words: str) -> set[str]:
    return {value for _, value in offered(*words)}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("expl",), {"explain"}),
        (("run", "table4_"), {"table4_d5"}),
        (("export", "d4", "table4_"), {"table4_d5"}),
        (("run", "d4", "--profile", "s"), {"smoke"}),
        (("search", "tune_s"), {"tune_selective"}),
        (("explain", "d4/g"), {"d4/gd"}),
        (("data", "show", "scen"), {"scenes"}),
        (("figure", "d_fig1"), {"d_fig1"}),
        (("run", "d4", "--set", "method.name=sel"), {"method.name=selective"}),
        (("run", "d4", "--set", "method"), {"method.name="}),
        (("search", "tuned", "--only", "gd,sel"), {"gd,selective"}),
    ],
)
def test_names_are_offered(words: tuple[str, ...], expected: set[str]) -> None:
    assert values(*words) == expected


def test_a_study_may_be_a_file() -> None:
    assert offered("run", "my_stu") == [("file", "my_stu")]


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_names_the_program(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["completion", shell]) == 0
    out = capsys.readouterr().out
    assert PROGRAM in out
    assert VARIABLE in out


def test_completion_answers_through_the_command_itself(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(VARIABLE, "bash_complete")
    monkeypatch.setenv("COMP_WORDS", "mtl-study plan table4_d")
    monkeypatch.setenv("COMP_CWORD", "2")
    with pytest.raises(SystemExit) as ended:
        run([])
    assert ended.value.code == 0
    assert capsys.readouterr().out == "plain,table4_d5\n"


def test_names_that_are_offered_are_still_checked(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", "tabel4_d5"]) == 2
    assert "did you mean 'table4_d5'" in capsys.readouterr().err
