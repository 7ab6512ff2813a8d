"""Engines that execute networks, and what is wrapped around their sessions."""
