"""The built-in sandboxes. Each module is loaded by its entry point, so that none needs the others."""
