"""Writing files of several kinds in one way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml


class _Dumper(yaml.SafeDumper):
    """Lists under a key are indented, and text of several lines stays readable."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, indentless=False)

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


_Dumper.add_representer(str, _text)


def yaml_text(*documents: Mapping[str, Any], about: Sequence[str] = ()) -> str:
    """YAML documents under comment lines."""
    head = "".join(f"# {line}\n" for line in about)
    bodies = (yaml.dump(dict(item), Dumper=_Dumper, sort_keys=False, width=120) for item in documents)
    return head + "---\n".join(bodies)
