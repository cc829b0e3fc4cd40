"""What a person sees: progress while something runs, tables when it is done."""
