"""Methods that learn nothing from source tasks, one short file each; ``training.methods`` registers them."""
