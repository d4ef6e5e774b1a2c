"""What the templates of the same names show: plain mappings of numbers, texts and plots."""
