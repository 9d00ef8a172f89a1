"""The command that prints the JSON schema of a kind of file."""

from __future__ import annotations

import click

from study.cli.options import example, print_json

KINDS = ("study", "search", "trial")


@click.command(
    epilog=example("mtl-study schema study > study.schema.json", "mtl-study schema trial > trial.schema.json"),
)
@click.argument("kind", type=click.Choice(KINDS))
def schema(kind: str) -> None:
    """Print the JSON schema of a study, search or trial file, for editors that complete and check YAML.

    Methods, data sets and task sets of installed packages are in it. A file names its schema in its first line:
    # yaml-language-server: $schema=study.schema.json
    """
    from study.json_schema import SCHEMAS

    print_json(SCHEMAS[kind]())
