"""The trajectory, which is the journal: written, checked, shown to models, and read back."""
