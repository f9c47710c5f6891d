"""What other tools read of finished runs: training data, and timelines for trace viewers."""
