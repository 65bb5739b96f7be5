"""Carrying a plan out, on one processor or many."""
