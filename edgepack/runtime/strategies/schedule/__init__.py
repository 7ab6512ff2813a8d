"""Kinds of chunk schedules: `STRATEGY` is a `stages.chunks.ChunkedSynthesis`."""
