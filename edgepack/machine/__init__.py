"""The machine at hand: its CPUs, memory and GPU software."""
