"""The trajectory, which is also the journal: writing, checking, rendering for models, reading."""
