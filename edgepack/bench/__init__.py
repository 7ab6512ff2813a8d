"""Bundles measured side by side: speed, latency, memory, energy; and a page that shows it."""
