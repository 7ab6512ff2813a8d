"""CosyVoice checkpoint folders, read without running anything they contain."""
