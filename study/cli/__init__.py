"""The command ``mtl-study``."""

from __future__ import annotations

import logging
import os
import sys
from typing import NoReturn

import click

from study import environment
from study.addresses import mask
from study.cli import (
    archive,
    cluster,
    completion,
    data,
    explaining,
    keeping,
    making,
    reading,
    running,
    schemas,
    search_reading,
    searching,
)
from study.cli.options import INTERRUPTED, USER_ERROR, example
from study.faults import store_trouble
from trainables.errors import ConfigError, UserError, unknown

environment.quiet()


def entry_point() -> NoReturn:
    """Run the command; user errors end in one line and exit code 2."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """The exit code of one invocation: 0; 1 where trials failed; 2 for a user error, said in one line; 130 after
    Ctrl-C."""
    try:
        code = main.main(args=arguments, prog_name="mtl-study", standalone_mode=False)
    except click.ClickException as error:
        return _say(error.format_message())
    except UserError as error:
        return _say(str(error))
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted; what is finished is kept", err=True)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output is gone (`mtl-study list | head`).
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if not store_trouble(error):
            raise
        return _say(store_trouble(error))
    return code if isinstance(code, int) else 0


def _say(message: str) -> int:
    click.echo("error: " + mask(" ".join(message.split())), err=True)
    return USER_ERROR


class _Group(click.Group):
    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and self.get_command(ctx, args[0]) is None:
            raise ConfigError(unknown("command", args[0], self.list_commands(ctx)))
        return super().resolve_command(ctx, args)


@click.group(cls=_Group, epilog=example("mtl-study list", "mtl-study run table4_d5"))
@click.version_option(package_name="mtl-study")
def main() -> None:
    """Hyperparameter and ablation studies for multi-task optimization."""


for _command in (
    reading.list_command,
    running.plan,
    running.run_command,
    searching.search_command,
    search_reading.search_report,
    searching.sensitivity_command,
    cluster.status,
    cluster.submit,
    cluster.logs,
    cluster.cluster,
    reading.table,
    reading.report,
    reading.figure,
    reading.claims,
    reading.audit,
    explaining.explain,
    explaining.compare,
    running.trial,
    data.data,
    reading.ui,
    keeping.verify,
    keeping.doctor,
    archive.export_command,
    archive.import_command,
    archive.gc_command,
    completion.completion_command,
    making.new,
    schemas.schema,
):
    main.add_command(_command)
completion.offer_names(main)
