"""Recordings and sound files: read, resampled, analysed, enrolled as voices, played."""
