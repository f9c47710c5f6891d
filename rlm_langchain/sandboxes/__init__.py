"""The built-in sandboxes. Each is loaded through its entry point, so that none needs the others."""
