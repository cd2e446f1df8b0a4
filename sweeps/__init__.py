"""Many runs of `core`: grids, schedule, tracking, status."""

import os

# Before Ray and MLflow are imported: nothing reports home, no dashboard, no loggers of their own.
os.environ |= {
    "RAY_USAGE_STATS_ENABLED": "0",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_worker_niceness": "0",  # Ray's default of 15 leaves trials the crumbs of a shared machine
    # Those that come up with Ray stay idle: Tune's have an environment of their own.
    "RAY_prestart_worker_first_driver": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}
# What may be set otherwise from outside. A tracking server that does not answer holds up nothing,
# since the driver keeps what it would log.
DEFAULTS = {
    "RAY_AUTH_MODE": "disabled",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}
os.environ |= DEFAULTS | os.environ
