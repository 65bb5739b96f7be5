"""Files that are written whole or not at all, in formats that cannot execute anything."""
