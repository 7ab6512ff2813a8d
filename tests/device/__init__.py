"""Bundles on arm64, emulated; run by `make test-arm64`."""
