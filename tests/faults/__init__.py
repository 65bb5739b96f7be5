"""A seeded campaign of faults against the real commands: ``python -m tests.faults --faults 200``."""
