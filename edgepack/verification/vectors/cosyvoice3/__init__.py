"""Recordings of CosyVoice3: `lm.npz`, `flow.npz`, `hift.npz`, `tts.npz`."""
