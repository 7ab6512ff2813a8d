"""Kinds of vocoders: `STRATEGY` is a `stages.vocoder.Vocoder`."""
