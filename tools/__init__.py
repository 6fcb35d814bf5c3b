"""Sets up a checkout and runs its commands; nothing here is part of the installed package."""
