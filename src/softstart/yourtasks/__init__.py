"""Tables of the user's own: learn a start, adapt it, predict."""
