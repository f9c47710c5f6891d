"""The page of a run: one HTML file that shows what the run did, without a server and without a network."""
