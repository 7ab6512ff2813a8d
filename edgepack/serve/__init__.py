"""Speech over HTTP: one ASGI app over loaded bundles."""
