"""CPUs of this machine: their kinds, which of them we may use, and pinning threads to them."""
