"""What survives the process: receipts, locks on threads, checked checkpoints."""
