"""Files that are written completely or not at all, in formats that cannot execute anything."""
