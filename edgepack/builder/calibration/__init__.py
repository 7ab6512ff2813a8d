"""Calibration: what networks are really given when they speak, recorded from the fp32 hub."""
