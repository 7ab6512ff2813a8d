"""Telemetry of engines and of hubs' libraries, which edgepack switches off when it is imported.

ONNX Runtime (since 1.29) looks up a host of Microsoft's when it is imported and keeps a device id
and a database of events in `~/.cache/Microsoft`. OpenVINO and NNCF do the same with a host of
Google's and a client id in `~/intel`, through the package `openvino_telemetry`. huggingface_hub
sends the names of the tools that download a file, and asks its hub how to recognise them.
"""

import os
import sys
from typing import Any, cast


def switch_off() -> None:
    """Switch it off, before an engine or such a library is imported; child processes inherit it.

    OpenVINO and NNCF have a stub for a telemetry package that is not installed.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    cast(dict[str, Any], sys.modules).setdefault("openvino_telemetry", None)
