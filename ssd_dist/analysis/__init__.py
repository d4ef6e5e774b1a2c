"""What a model costs: by count and by the clock."""
