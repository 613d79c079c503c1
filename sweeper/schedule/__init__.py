"""Who starts when and on which devices, and how long it will take."""
