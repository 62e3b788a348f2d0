"""Write the profiles into prefect.yaml, where the form of a deployment takes its values from."""

from __future__ import annotations

import sys
from io import StringIO
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap

from deployments.surroundings import PROJECT
from symbio_core.config import RunConfig, changed
from symbio_core.profiles import profile

FILE = PROJECT / "prefect.yaml"
LINE = 80
"""Settings longer than this take a line each (characters)."""


def deployed_configs() -> dict[str, RunConfig]:
    """Return the configuration of each deployment that has one of its own."""
    return {
        "smoke": profile("smoke"),
        "nightly": changed(profile("demo"), {"start_from": "latest"}),
        "autonomous-gpu": profile("l4"),
    }


def refreshed(text: str) -> str:
    """Return the text of prefect.yaml with the blocks called `config` brought up to date."""
    yaml = YAML()
    yaml.width = 100
    yaml.indent(mapping=2, sequence=4, offset=2)
    document: Any = yaml.load(text)
    configs = deployed_configs()
    for deployment in document["deployments"]:
        if deployment["name"] in configs:
            config = configs[deployment["name"]]
            difference = config.model_dump(mode="json", exclude_defaults=True)
            deployment["parameters"]["config"] = _on_few_lines(difference)
    written = StringIO()
    yaml.dump(document, written)
    return written.getvalue()


def _on_few_lines(settings: dict[str, Any]) -> CommentedMap:
    """Return nested settings as YAML that gives a group one line where one is enough."""
    block = CommentedMap()
    for name, value in settings.items():
        block[name] = _on_few_lines(value) if isinstance(value, dict) else value
    if len(str(settings)) <= LINE:
        block.fa.set_flow_style()
    return block


def main() -> int:
    """Rewrite the file if it is behind."""
    text = FILE.read_text(encoding="utf-8")
    fresh = refreshed(text)
    if fresh != text:
        FILE.write_text(fresh, encoding="utf-8")
        print(f"brought up to date: {FILE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
