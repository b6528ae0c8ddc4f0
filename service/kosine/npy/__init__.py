"""What the head of an .npy claims, checked; and what it is, where it is none. Of files and of bodies."""
