"""What a study will take: memory, time, GPU hours."""
