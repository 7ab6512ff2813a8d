"""The folder that a build writes and a device reads: manifest, voices, and what lies beside it."""
