"""File formats, one module each: `BACKEND` writes a hub graph as the files of one runtime."""
