"""Energy meters, and measurements made with them."""
