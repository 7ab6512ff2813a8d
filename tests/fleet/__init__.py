"""A server with what stands around it, all of it real: `make test-fleet`.

Redis, a browser, Ray, Prometheus and HAProxy; what is not installed is skipped by name.
"""
