"""Programs compiled ahead of time, and what their text says about memory, arithmetic and traffic."""
