"""What a run looks like to people: one HTML file that opens offline, and a short summary in the terminal."""
