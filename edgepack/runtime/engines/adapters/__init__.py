"""Inference engines, one module each: `ENGINE` follows `runtime.session.Engine`."""
