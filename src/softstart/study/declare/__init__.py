"""What a study is: its keys, its presets, its settings."""
