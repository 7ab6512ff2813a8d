"""Scripts that import nothing of edgepack."""
