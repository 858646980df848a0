"""Asks what is known to be wrong with the locked dependencies, and tells apart what pip-audit puts together: a finding
fails, nothing known passes, and advisories that could not be had for some or all of them are said to be missing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

_HERE = Path(__file__).parent
_LOCKS = ("run.txt", "deploy.txt")
_GIVE_UP_S = 300


def main() -> int:
    found = 0
    for lock in _LOCKS:
        command = [
            *(str(Path(sys.executable).with_name("pip-audit")), "--requirement", str(_HERE / lock)),
            *("--require-hashes", "--disable-pip", "--progress-spinner", "off", "--format", "json", "--timeout", "15"),
        ]
        try:
            asked = subprocess.run(command, capture_output=True, text=True, timeout=_GIVE_UP_S)
            dependencies = json.loads(asked.stdout)["dependencies"]
        except (subprocess.TimeoutExpired, json.JSONDecodeError, KeyError, TypeError):
            print(f"{lock}: the advisories cannot be had here, so nothing is known about it.")
            continue
        unknown = [one["name"] for one in dependencies if "skip_reason" in one]
        for one in dependencies:
            for flaw in one.get("vulns", ()):
                found += 1
                fixed = ", ".join(flaw["fix_versions"]) or "no version yet"
                print(f"{lock}: {one['name']} {one['version']}: {flaw['id']}, mended in {fixed}")
        print(f"{lock}: {len(dependencies) - len(unknown)} of {len(dependencies)} dependencies were looked up.")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
