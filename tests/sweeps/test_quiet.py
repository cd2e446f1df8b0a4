"""Nothing reports home, whatever the shell that started us has set."""

import os
import subprocess
import sys

PROBE = """
import sweeps
from mlflow.telemetry.utils import is_telemetry_disabled
from ray._common.usage.usage_lib import usage_stats_enabled
print(usage_stats_enabled(), is_telemetry_disabled())
"""
# What the libraries themselves take for a reason to be quiet, and ours.
REASONS = ("MLFLOW_DISABLE_TELEMETRY", "DO_NOT_TRACK", "CI", "PYTEST_CURRENT_TEST")


def test_telemetry_is_off() -> None:
    shell = {name: value for name, value in os.environ.items() if name not in REASONS}
    shell["RAY_USAGE_STATS_ENABLED"] = "1"
    done = subprocess.run(
        [sys.executable, "-c", PROBE], env=shell, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False", "True"]
