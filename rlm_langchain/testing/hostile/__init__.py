"""Programs that attack a sandbox, and the judge of what they did."""
