"""What can be a context, and where its bytes live."""
