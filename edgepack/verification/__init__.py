"""Proof that a bundle computes what it should: self-test, and vectors of the original."""
