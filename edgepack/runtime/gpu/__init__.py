"""Networks on an NVIDIA GPU: what a bundle promises, what the device has, where each one runs."""
