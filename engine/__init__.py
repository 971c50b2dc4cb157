"""The data engine of Segment Anything; knows neither Flask nor Celery."""

import os

# onnxruntime would open a database of its own in the user's cache when imported, and may send what is in it.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
