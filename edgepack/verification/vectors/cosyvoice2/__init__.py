"""Recordings of CosyVoice2: `lm.npz`, `flow.npz`, `hift.npz`, `tts.npz`."""
