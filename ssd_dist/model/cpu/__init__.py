"""What a network's layers compute on CPUs, in fewer passes through memory and fewer products."""
