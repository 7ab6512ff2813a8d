"""Kinds of prompt features: `STRATEGY` maps audio to a mel spectrogram."""
