from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from study import environment
from study.home import Home
from trainables.errors import StoreError


def test_the_home_is_named_by_option_then_environment_then_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MTL_STUDY_HOME", str(tmp_path / "env"))
    assert Home.locate(tmp_path / "given").path == tmp_path / "given"
    assert Home.locate().path == tmp_path / "env"
    monkeypatch.delenv("MTL_STUDY_HOME")
    monkeypatch.chdir(tmp_path)
    assert Home.locate().path == tmp_path / "mtl-study-home"


def test_a_home_that_cannot_be_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"file/home: cannot be written: Not a directory \(choose another with --home"):
        Home(tmp_path / "file" / "home").require()


def test_a_second_run_on_one_home_is_refused_while_the_first_lives(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    code = (
        "import sys, pathlib; from study.home import Home\n"
        "with Home(pathlib.Path(sys.argv[1])).lock():\n"
        "    print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(home.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(StoreError, match=f"another run \\(process {other.pid}\\) is using it"), home.lock():
            pass
        other.kill()
    with home.lock():
        assert (home.path / ".lock").read_text() == str(os.getpid())


def test_the_ray_token_is_private_kept_and_set_on_this_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    path = environment.ray_token(tmp_path)
    token = path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(token) == 64
    assert os.environ["RAY_AUTH_MODE"] == "token"
    assert os.environ["RAY_AUTH_TOKEN_PATH"] == str(path)
    path.chmod(0o644)
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name)
    assert environment.ray_token(tmp_path).read_text() == token
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_token_the_user_configured_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "theirs")
    environment.ray_token(tmp_path)
    assert os.environ["RAY_AUTH_TOKEN"] == "theirs"
    assert not (tmp_path / environment.TOKEN_FILE).exists()


def test_telemetry_is_off_unless_the_user_turned_it_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_USAGE_STATS_ENABLED", raising=False)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "false")
    environment.quiet()
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "false"
