"""What models read: prompts and strategies."""
