"""The LiteRT lowering, operator by operator."""
