"""This process and its children: signals, limits, operating systems, shortages, no calls home."""
