"""Everything that outlives a process: receipts of replies, locks on threads, verified checkpoints."""
