"""What a reader of the MLflow UI sees of a study first: links to its trials, its report beside the parent run, and the
way there in the experiment's description."""

from __future__ import annotations

import logging
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

from study import schema
from study.faults import first_line
from study.home import Home
from study.store import open_client

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

logger = logging.getLogger(__name__)

NOTE = "mlflow.note.content"
"""Tag that MLflow shows as a run's or an experiment's description, in Markdown."""
_REPORTS = "\n\nReports: "
_TRAINING = "workflowType=machine_learning"
"""Without it the UI shows the pages of its other half, for language models."""
_MOST = 10
_HAS_REPORT = "report"


def put_report(home: Home, study: str, profile: str, report: Path) -> None:
    """Put a study's report beside its parent run of this profile, and say in the experiment's description where.

    The records are whole without it: a store that does not take it is warned of.
    """
    try:
        client = open_client(home)
        parents = _parents(client, study)
        parent = parents.get(profile)
        if parent is None:
            return
        with tempfile.TemporaryDirectory() as folder:
            copy = shutil.copyfile(report, Path(folder) / schema.REPORT_FILE)
            client.log_artifact(parent.info.run_id, str(copy))
        client.set_tag(parent.info.run_id, _HAS_REPORT, "True")
        links = [
            f"[{name}](#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}/artifacts/"
            f"{schema.REPORT_FILE}?{_TRAINING})"
            for name, run in sorted(parents.items())
            if name == profile or _HAS_REPORT in run.data.tags
        ]
        experiment = client.get_experiment(parent.info.experiment_id)
        about = experiment.tags.get(NOTE, "").partition(_REPORTS)[0]
        client.set_experiment_tag(
            experiment.experiment_id,
            NOTE,
            f"{about}{_REPORTS}{', '.join(links)}. [Trials by Delta_m]({trials(experiment.experiment_id)})",
        )
    except Exception as error:  # noqa: BLE001 - whatever the store raises
        logger.warning("the report is not shown in the MLflow UI: %s", first_line(error))


def trials(experiment: str) -> str:
    """The part of an address of the MLflow UI that shows a study's trials, the best on the test split first."""
    chosen = {
        "searchFilter": f"tags.{schema.KIND} = '{schema.TRIAL_RUN}'",
        "orderByKey": f"metrics.`{schema.DELTA_M}`",
        "orderByAsc": "false",
    }
    return f"#/experiments/{experiment}/runs?{_TRAINING}&{urlencode(chosen, quote_via=quote)}"


def addresses(client: MlflowClient, base: str) -> list[tuple[str, str]]:
    """What to open in the MLflow UI at ``base``: the studies and searches changed last, by name, and all of them."""
    experiments = client.search_experiments(order_by=["last_update_time DESC"], max_results=_MOST + 1)
    ours = [each for each in experiments if schema.STUDY in each.tags][:_MOST]
    return [
        *((each.name, f"{base}/{trials(each.experiment_id)}") for each in ours),
        ("all", f"{base}/#/experiments?{_TRAINING}"),
    ]


def _parents(client: MlflowClient, study: str) -> dict[str, Run]:
    """Profile to the newest parent run of it."""
    experiment = client.get_experiment_by_name(study)
    if experiment is None:
        return {}
    query = f"tags.{schema.KIND} = '{schema.STUDY_RUN}'"
    runs = client.search_runs([experiment.experiment_id], query, order_by=["attributes.start_time ASC"])
    return {run.data.tags.get(schema.PROFILE, ""): run for run in runs}
