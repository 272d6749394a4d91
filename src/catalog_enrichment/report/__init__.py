"""What a run or a training looked like, for people: a table, figures, one HTML file."""
