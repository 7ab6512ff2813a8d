"""Bundles in the layout of other servers' repositories of models."""
