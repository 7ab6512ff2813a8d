"""Cutting the text vocabulary down to languages, with a proof that their text is unharmed."""
