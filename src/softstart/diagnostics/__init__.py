"""Looking into a machine, a prompt, a task."""
