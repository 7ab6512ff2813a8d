"""Inference engines, one module each: `ENGINE` follows `runtime.engines.session.Engine`."""
