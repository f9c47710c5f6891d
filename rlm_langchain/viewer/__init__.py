"""The run viewer: one HTML file that shows a run, without a server or a network."""
