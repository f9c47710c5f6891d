"""Models: how they are named, reached, asked once, and priced."""
