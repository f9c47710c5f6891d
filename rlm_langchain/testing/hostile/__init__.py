"""Programs that attack a sandbox, and a judge of their effects."""
