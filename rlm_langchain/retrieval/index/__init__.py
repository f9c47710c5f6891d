"""How passages are cut and found, by words and by meaning."""
