"""Speech over Wyoming, the protocol of Home Assistant: the same service as over HTTP."""
