"""Where a run computes and what that costs: machines, places to try, prices, the ledger."""
