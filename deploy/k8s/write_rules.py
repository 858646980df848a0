"""The rules of deploy/observe as the Prometheus operator takes them: components/monitoring/prometheus-rule.yaml. A test
holds the two together."""

from __future__ import annotations

import sys
from pathlib import Path

import yaml

HERE = Path(__file__).parent
RULES = HERE.parent / "observe" / "rules"
TARGET = HERE / "components" / "monitoring" / "prometheus-rule.yaml"


def render(rules: Path = RULES) -> str:
    """Groups keep their names, expressions and order; files go by their names."""
    groups = [
        group
        for file in sorted(rules.glob("*.yml"))
        for group in (yaml.safe_load(file.read_text(encoding="utf-8")) or {}).get("groups", [])
    ]
    resource = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "forebay", "namespace": "forebay"},
        "spec": {"groups": groups},
    }
    text = yaml.safe_dump(resource, sort_keys=False, width=125, allow_unicode=True)
    return f"# Written by deploy/k8s/write_rules.py from deploy/observe/rules; change those.\n{text}"


if __name__ == "__main__":
    TARGET.write_text(render(), encoding="utf-8")
    sys.stdout.write(f"{TARGET.relative_to(HERE.parent.parent)}\n")
