"""What a session remembers from outside its window, and where its camera stands."""
