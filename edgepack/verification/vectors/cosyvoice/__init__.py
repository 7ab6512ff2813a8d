"""Recordings of CosyVoice 1: `lm.npz`, `flow.npz`, `hift.npz`, `tts.npz`."""
