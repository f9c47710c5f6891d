"""Batches: a file of questions, a file of results, one purse and one pace for all of them."""
