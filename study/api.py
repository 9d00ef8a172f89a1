"""Studies from Python: what the command line does, for notebooks and scripts.

    from study import Study

    Study("table4_d5").run(profile="cpu")
    Study("table4_d5").table()

Errors are those of the command line (:class:`trainables.errors.UserError`, one line each). Like ``study.cli``, this
module knows every package; nothing imports it but users.
"""

from __future__ import annotations

import html
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from study.home import Home
from trainables.errors import ConfigError, StoreError, UserError, unknown

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from analysis.compare import Comparison
    from analysis.explain import Explanation
    from analysis.records import Records
    from study.plan import Plan
    from study.runner import Outcome
    from study.search.engine import SearchOutcome
    from study.search.spec import SearchSpec
    from study.spec import StudySpec


class Study:
    """A study or search by name.

    Args:
        name: as ``mtl-study list`` shows it, or a YAML file of a study.
        home: folder of all state; else ``$MTL_STUDY_HOME``, else ``./mtl-study-home``.
        profile: for every call that names none. Without it studies are planned at their own profile, and read at the
            one planned last.
        seeds: number of replicates instead of the profile's.
        fields: trial-config field path to value, for every trial: ``{"optim.lr": 1e-3}``.

    Raises:
        ConfigError: there is no such study (the nearest is named), or it is a bundle of several.
    """

    def __init__(
        self,
        name: str,
        home: str | Path | None = None,
        *,
        profile: str | None = None,
        seeds: int | None = None,
        fields: Mapping[str, Any] | None = None,
    ) -> None:
        self.home = Home.locate(home)
        self.profile = profile
        self._seeds = seeds
        self._fields = dict(fields or {})
        self.spec = _spec(name)
        if profile is not None:
            from study.spec import profile as check

            check(profile)

    @property
    def id(self) -> str:
        """Its name in the records."""
        return self.spec.id

    @cached_property
    def is_search(self) -> bool:
        """Whether Optuna chooses its trials."""
        from study.spec import StudySpec

        return not isinstance(self.spec, StudySpec)

    # ---- training --------------------------------------------------------------------------------

    def run(
        self,
        profile: str | None = None,
        *,
        executor: str = "ray",
        workers: int | None = None,
        device: str = "auto",
        gpus_per_trial: float = 1.0,
        processes: int | None = None,
        report_every: float | None = None,
        cluster: str = "local",
        save_model: bool = False,
        quiet: bool = False,
    ) -> Outcome:
        """Train what the records lack of it; ``mtl-study run``.

        Args:
            profile: smoke, cpu, gpu or paper.
            executor: ``ray``, or ``local`` for plain worker processes.
            workers: trials at a time; else one per usable core, or all of a cluster.
            device: ``auto``, ``cpu`` or ``cuda``.
            gpus_per_trial: share of a GPU each trial gets, or how many train it together.
            processes: that train each trial together; else as the study's resources say.
            report_every: seconds between reports of a running trial; else 5, or more where over 200 run at a time.
            cluster: ``local``, ``HOST:PORT`` or ``auto``.
            save_model: keep each trained network beside its run, as an MLflow model.
            quiet: show no progress.

        Raises:
            UserError: home, data or a checkpoint cannot be used, or it is a search.
        """
        from rich.console import Console

        from analysis.delta_m import delta_m
        from study.runner import run_study

        return run_study(
            self._plan(profile),
            self.home,
            executor=executor,
            settings=_settings(workers, gpus_per_trial, cluster, save_model, processes, report_every),
            device=device,
            console=Console(stderr=True, quiet=quiet),
            gain=delta_m,
        )

    def search(
        self,
        profile: str | None = None,
        *,
        trials: int | None = None,
        hours: float | None = None,
        executor: str = "ray",
        workers: int | None = None,
        device: str = "auto",
        gpus_per_trial: float = 1.0,
        processes: int | None = None,
        report_every: float | None = None,
        cluster: str = "local",
        quiet: bool = False,
    ) -> SearchOutcome:
        """Tune with Optuna, then train the winners on fresh seeds; ``mtl-study search``.

        Args:
            profile: as in :meth:`run`.
            trials: of each contender instead of the spec's.
            hours: start no trial after so many.
            executor: as in :meth:`run`.
            workers: as in :meth:`run`.
            device: as in :meth:`run`.
            gpus_per_trial: as in :meth:`run`.
            processes: as in :meth:`run`.
            report_every: as in :meth:`run`.
            cluster: as in :meth:`run`.
            quiet: as in :meth:`run`.

        Raises:
            UserError: as :meth:`run`, or it is no search.
        """
        from rich.console import Console

        from analysis.delta_m import delta_m
        from study.search.engine import SearchOptions, run_search
        from study.search.limits import Limits
        from study.search.plan import plan_search

        spec = self._search_spec()
        planned = plan_search(spec.changed(trials=trials), profile or self.profile, self._seeds, self._fields)
        return run_search(
            planned,
            self.home,
            delta_m,
            options=SearchOptions(limits=Limits(hours, None)),
            executor=executor,
            settings=_settings(workers, gpus_per_trial, cluster, False, processes, report_every),
            device=device,
            console=Console(stderr=True, quiet=quiet),
        )

    # ---- reading ---------------------------------------------------------------------------------

    def plan(self, profile: str | None = None) -> pd.DataFrame:
        """Its rows held against the records, which need not exist: ``trials``, ``finished``, ``shared``, ``left``,
        ``trunk_passes``, ``seconds_left``; index ``row``."""
        from dataclasses import asdict

        import pandas as pd

        from study.cli.options import usable_cores
        from study.overview import plan_overview

        overview = plan_overview([self._plan(profile)], self.home, usable_cores())
        frame = pd.DataFrame([asdict(row) for row in overview.rows]).set_index("row")
        frame.attrs = {name: value for name, value in overview.to_dict().items() if name != "rows"}
        return frame

    def status(self, profile: str | None = None) -> pd.DataFrame:
        """Every trial of the recorded plan: ``row``, ``trial_key``, ``seed``, ``tasks``, ``state``, ``reason``,
        ``seconds``, ``iterations``.

        Raises:
            StoreError: it is not recorded.
        """
        from dataclasses import asdict

        import pandas as pd

        from study.overview import status_overview

        return pd.DataFrame([asdict(t) for t in status_overview(self.home, self.id, profile or self.profile).trials])

    def records(self, profile: str | None = None) -> Records:
        """Trials, metrics, curves and grouping histories as data frames and arrays.

        Raises:
            StoreError: it is not recorded.
        """
        from analysis.records import Records

        return Records.load(self.home.path, self.id, profile or self.profile)

    def table(self, profile: str | None = None) -> pd.DataFrame:
        """Its table: measured means, spreads and intervals beside the published numbers.

        Raises:
            StoreError: it is not recorded.
        """
        from analysis.tables import make_table

        return make_table(self.records(profile))

    def figure(self, name: str = "bars", profile: str | None = None) -> Figure:
        """A figure of ``mtl-study figure``, drawn from this study.

        Raises:
            ConfigError: there is no such figure; the nearest is named.
            StoreError: what it shows is not recorded.
        """
        from analysis.figures import FIGURES, canvas
        from analysis.figures.shelf import Shelf

        if name not in FIGURES:
            raise ConfigError(unknown("figure", name, FIGURES))
        kind = FIGURES[name]
        with canvas.style():
            return kind.draw(Shelf(name, self.home.path, profile or self.profile, kind.studies, self.id))

    def claims(self, profile: str | None = None) -> pd.DataFrame:
        """The paper's statements that are tested on this study, with verdicts.

        Raises:
            StoreError: nothing is recorded.
        """
        from analysis.claims import claims

        found = claims(self.home.path, profile or self.profile)
        # A claim's own line has no study; its comparisons have.
        here = [self.id in str(names).split(", ") for names in found["study"]]
        own = found[found["claim"].isin(set(found.loc[here, "claim"]))].reset_index(drop=True)
        own.attrs = found.attrs
        return own

    def report(self, profile: str | None = None) -> Path:
        """Write its report, one HTML file; returns the file."""
        from study.cli.options import write_study_report

        return write_study_report(self.home, self.id, profile or self.profile)

    def explain(self, cell: str) -> Explanation:
        """What is known of a row of it, or of a cell, trial or run; ``mtl-study explain``."""
        from analysis.explain import explain
        from study.cli.explaining import base_of, shorten

        return explain(self._directory(), self._name(cell), shorten, base_of)

    def compare(self, a: str, b: str) -> Comparison:
        """Two rows of it, or cells, trials or runs, held against each other; ``mtl-study compare``."""
        from analysis.compare import compare

        return compare(self._directory(), self._name(a), self._name(b))

    def __repr__(self) -> str:
        return f"Study({self.id!r}, home={str(self.home.path)!r})"

    def _repr_html_(self) -> str:
        """For Jupyter: its table where it is recorded, else its plan."""
        try:
            frame, note = self.table(), ""
        except StoreError:
            if self.is_search:
                return f"<p><b>{html.escape(self.spec.title)}</b>: not recorded yet</p>"
            frame, note = self.plan(), " (not recorded yet; its plan)"
        except UserError as error:
            return f"<p><b>{html.escape(self.spec.title)}</b>: {html.escape(str(error))}</p>"
        table = frame.to_html(na_rep="", float_format="{:.4g}".format)
        return f"<p><b>{html.escape(self.spec.title)}</b>{note}</p>{table}"

    # ---- parts -----------------------------------------------------------------------------------

    def _plan(self, profile: str | None) -> Plan:
        from study.plan import make_plan
        from study.spec import StudySpec

        if not isinstance(self.spec, StudySpec):
            raise ConfigError(f"{self.id} is a search: use .search()")
        return make_plan(self.spec, profile or self.profile, self._seeds, self._fields)

    def _search_spec(self) -> SearchSpec:
        from study.search.spec import SearchSpec

        if not isinstance(self.spec, SearchSpec):
            raise ConfigError(f"{self.id} is no search: use .run()")
        return self.spec

    def _directory(self) -> Any:
        from analysis.store import Store
        from analysis.subjects import Directory

        return Directory(Store(self.home.path), self.profile)

    def _name(self, name: str) -> str:
        """A row of this study by its id or label, before anything else of that name."""
        rows = {row.id for row in self.records().plan.rows} | {row.label for row in self.records().plan.rows}
        return f"{self.id}/{name}" if name in rows else name


def _spec(name: str) -> StudySpec | SearchSpec:
    from study.search.spec import load_search, search_names
    from study.spec import bundles, load_spec, spec_names

    if name in bundles():
        raise ConfigError(f"{name} is a bundle of {', '.join(bundles()[name].studies)}; name one of them")
    if name in search_names():
        return load_search(name)
    if not name.endswith((".yaml", ".yml")) and name not in spec_names():
        raise ConfigError(unknown("study", name, [*spec_names(), *search_names()]))
    return load_spec(name)


def _settings(
    workers: int | None,
    gpus_per_trial: float,
    cluster: str,
    save_model: bool = False,
    processes: int | None = None,
    report_every: float | None = None,
) -> Any:
    from study.cli.options import executor_settings

    given = {"workers": workers, "gpus_per_trial": gpus_per_trial, "cluster": cluster, "save_model": save_model}
    return executor_settings({**given, "processes": processes, "report_every": report_every})
