"""Tables of a report, Markdown pages and names of metrics as text."""
