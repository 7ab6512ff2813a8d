"""Meaning of the recorded files, one module each: `check` compares all arrays of a file."""
