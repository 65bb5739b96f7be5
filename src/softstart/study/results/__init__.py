"""A study's database, and the tables made from it."""
