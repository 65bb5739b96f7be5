"""From a declaration to runs with keys, and the choice among them."""
