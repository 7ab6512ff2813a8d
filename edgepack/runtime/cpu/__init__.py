"""CPUs of this machine: what kinds there are, which we may use, and how we come to run there."""
