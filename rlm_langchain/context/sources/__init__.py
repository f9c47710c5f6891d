"""What `context` can be: one module for each kind."""
