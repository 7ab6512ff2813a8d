"""Files and folders: written whole or not at all, locked, linked, cached, read within bounds."""
