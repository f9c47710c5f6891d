"""HTTP connections to providers, shared by all models of an event loop."""
