"""Import paths of the tutorial's library; everything is implemented in the modules above."""
